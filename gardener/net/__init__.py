"""Sockets, and nothing that is decided: that is in `protocol`.

`address` says where, `dial` and `listen` are the two ways to get a `link`, `carrier` moves its
bytes, `probe` measures it, and `neighbours` are the two links of each peer in the ring.
"""
