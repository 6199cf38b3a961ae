"""Simulated rings in which things go wrong, as a seed says: what, where and when.

`machines.py` lets processes die or stand still, `faults.py` knows what can go wrong, `case.py`
draws a ring, its requests and its faults from a seed, `written.py` what its model writes,
`run.py` plays a case by way of `injector.py`, `oracle.py` says what was wrong with what came of it,
and `outcome.py` sums it up.
"""
