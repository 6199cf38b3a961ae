"""Drafting on a device with kernels of its own: what is computed is recorded and replayed.

A step of drafting is dozens of small kernels, each of which takes longer to start than to run, and
waits on top. So what a step reads stands at fixed addresses (`parcel`, `seats`), its sizes are few
(`steps`), and all of its kernels are started together: one copy there, one start, one copy back.
"""
