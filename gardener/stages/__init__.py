"""The layers of the target model: cut from a checkpoint, kept with their cache, computed.

Doors: `stage` is what a node drives (segments in, segments out); `slots` is the part of it that the
event loop owns and knows no torch; `layers` says who holds which layers; `weights` and `split` read
and cut checkpoints.
"""
