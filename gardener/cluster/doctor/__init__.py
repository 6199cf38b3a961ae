"""What is wrong with a cluster, and the command that mends it.

`gather` looks at everybody at once and keeps what it saw (`seen`). The checks are pure functions
over that, each in the module of its subject; `examine` puts their findings in the order in which
they are to be mended.
"""
