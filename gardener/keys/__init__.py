"""Makes the keys of a cluster: its CA, and a certificate for the holder, each stage and each spare.

What a peer does with them is in `net/keys.py` and `net/tls.py`, which need none of this.
"""
