"""The few sizes that a pass on a device has: of its rows, and of the text that they look back on.

Each pair of them is a graph of its own.
"""

from collections.abc import Sequence

ROWS = (16, 32, 64, 128)
"""Rows of a pass: fewer are filled up to the next one, more are computed in several passes. A few
rows take as long as one: what takes the time is to read the weights."""

FEW = (1, 2, 4, 8)
"""Sizes below those, for stages whose kernels take less time for fewer rows, and give a row the
same bits."""

CHUNK = 256
"""Rows of the settled text that one block of a kernel looks back on, one after the other."""

SLACK = 32
"""So many positions before a row at least are in its tail: they may stand in any slots."""

STEP = 32
"""Tails begin at multiples of this."""

TAIL = SLACK + STEP
"""Most rows of a tail, the row itself among them."""


def filled(rows: int, sizes: Sequence[int]) -> int:
    """The size, out of some in ascending order, for so many rows: not more than the last one."""
    return next(size for size in sizes if size >= rows)


def cut_of(position: int) -> int:
    """How many rows of the text are settled for one at this position: the others are its tail."""
    return max(position - SLACK, 0) // STEP * STEP


def chunks(settled: int, slots: int) -> int:
    """How many chunks a pass looks back on if so many rows are settled for one of its rows, in a
    cache of this many slots: a power of two, or all that there are; 0: none is."""
    needed = -(-settled // CHUNK)
    if not needed:
        return 0
    return min(1 << (needed - 1).bit_length(), slots // CHUNK)
