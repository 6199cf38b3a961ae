"""A whole ring in one process under a virtual clock (design, section 9).

The holder, the nodes and the links are the real ones, and so is the drafter. Not real: the time,
the network, and the target, whose answers were recorded before.
"""
