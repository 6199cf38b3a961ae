"""What a run looks like in a terminal: pictures of the live objects, and how they are drawn.

`live` is the screen itself; `holder` and `node` are what it shows; `watch` and `nodewatch` take the
pictures. That happens a few times a second; in between nothing is paid.
"""
