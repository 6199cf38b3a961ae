"""What a run looks like in a terminal.

`holder_watch` and `node_watch` read the live objects a few times a second and sum them up as a
`status`; `holder_frame` and `node_frame` draw a status; `live` is the screen they are drawn on.
"""
