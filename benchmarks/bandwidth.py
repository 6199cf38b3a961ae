"""How fast this machine reads memory from one end to the other: the bound of a pass over weights.

The best of several passes of two kinds over half a gigabyte, which no cache holds: the sum of
float32 numbers and the largest of 8-bit ones. Neither writes anything, and both do less arithmetic
than a matrix product of one row.
"""

import time
from collections.abc import Callable

import torch

BYTES = 2**29
TURNS = 8


def bandwidth(threads: int, turns: int = TURNS) -> float:
    """Bytes per second that this process reads with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        numbers = torch.ones(BYTES // 4)
        small = numbers.view(torch.int8)
        ways: tuple[Callable[[], object], ...] = (numbers.sum, small.amax)
        return BYTES / min(_seconds(way) for _ in range(turns) for way in ways)
    finally:
        torch.set_num_threads(before)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
