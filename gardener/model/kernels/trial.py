"""Tries in which numbers of rows a kernel adds up every row in the same order.

Kernels work on blocks of rows, and a block of few may have an order of its own, as may a pass of
many; which ones they take depends on the shape, the dtype, the number of threads and the device.
So the very layer is tried, see `batch_invariant.py`. What is here is for the CPU, but for what
`device_trial.py` has in common with it.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from typing import TypeAlias

import torch
from torch import Tensor

from gardener.model.kernels.interface import UNTRIED, Linear
from gardener.model.kernels.synthetic import cancelling, ordinary

_FEW = (*range(1, 18), 20)
"""Numbers of rows that are tried whatever it takes."""

_MORE, _SECONDS = (64, 48, 32, 24, 40, 56, 28), 1.0
"""Those that are tried in this order as long as they take no more than so many seconds. Pieces of
64 rows take about as long as a pass of 512."""

_CHEAP = 4  # a row alone that is filled up to this is taken without a look at other orders
_ORDERS = (64, 16, 8)  # passes of so many rows, whose order of summing the others are held to
_MOST = 16  # least rows that must be left in one pass
_SAMPLE = (1, 2, 3, 5, 8, 16)  # numbers of rows that tell how far a row may be from itself
_ROUNDS, _TIMING = 6, 0.3  # most rounds of timing, in turns, and seconds after which it ends
_DEARER = 1.1  # in float32, filling up may make a row alone take so much longer

Compute: TypeAlias = Callable[[Tensor], Tensor]
"""Rows [n, inputs] to rows [n, outputs], as `interface.Linear` does."""


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    rows    numbers of rows, ascending, that were tried and are good: what is fewer is filled up to
            the next one, and what is more than the last is computed in several passes
    spread  the largest difference of a row to itself in another batch that remains then, as a part
            of its size (the norm of the difference by that of the row); 0.0: there is none
    """

    rows: tuple[int, ...]
    spread: float

    @property
    def most(self) -> int:
        """Rows of one pass."""
        return self.rows[-1]


@torch.inference_mode()
def tried(
    layer: Linear, inputs: int, dtype: torch.dtype, device: torch.device, rounds: bool = False
) -> Trial:
    """Try a layer whose weights are made of `synthetic.tile`, with rows of this dtype. `rounds`:
    whether it rounds its rows, so that the last bit of one may count for much in the next layer."""
    counts = _affordable(layer, cancelling(_MOST, inputs).to(device, dtype))
    rows = cancelling(counts[-1] + 1, inputs).to(device, dtype)
    given = [rows]
    if rounds:  # parts of sums are made in integers, where what cancels out leaves no error
        given.append(ordinary(counts[-1] + 1, inputs).to(device, dtype))
    found: list[Trial] = []
    for order in _ORDERS:
        if order <= counts[-1]:
            good = set.intersection(*(agreeing(layer, each, counts, order) for each in given))
            if max(good, default=0) >= _MOST:
                found.append(Trial(tuple(sorted(good)), 0.0))
        if found and found[-1].rows[0] <= _CHEAP:
            break
    if not found:  # of two, which at least keeps rows alone out of kernels for one
        even = tuple(count for count in counts if count % 2 == 0)
        return _not_exact(layer, inputs, rows, Trial(even, 0.0))
    best = min(found, key=lambda each: each.rows[0])
    if dtype == torch.float32 and not rounds and _dear(layer, rows, best):
        return _not_exact(layer, inputs, rows, Trial(tuple(range(1, best.most + 1)), 0.0))
    return best


def _affordable(layer: Linear, rows: Tensor) -> list[int]:
    """The numbers of rows, ascending, that can be tried in the time that there is."""
    one_row = _seconds(layer, rows) / len(rows)
    ends = accumulate(one_row * count * 2 for count in _MORE)  # once for what is expected
    more = [count for count, end in zip(_MORE, ends, strict=True) if end <= _SECONDS]
    return sorted((*_FEW, *more))


def agreeing(layer: Compute, rows: Tensor, counts: Sequence[int], order: int) -> set[int]:
    """The numbers of rows that give every row the bits which it has in passes of `order` rows, at
    any place there: none if it is not the same at all. `rows`: one more than the largest number,
    for few are tried from the second one on, too, whose terms cancel out in another way."""
    expected = in_passes(layer, rows, order)
    if not torch.equal(layer(rows[:order].roll(1, 0)), expected[:order].roll(1, 0)):
        return set()

    def agrees(first: int, count: int) -> bool:
        part = slice(first, first + count)
        return torch.equal(layer(rows[part]), expected[part])

    return {
        count for count in counts if agrees(0, count) and (count > _FEW[-1] or agrees(1, count))
    }


def _dear(layer: Linear, rows: Tensor, trial: Trial) -> bool:
    """Whether a row alone takes much longer filled up."""
    full = filled(1, trial)
    if full == 1:
        return False
    alone = together = math.inf
    until = time.perf_counter() + _TIMING
    for _ in range(_ROUNDS):
        alone = min(alone, _seconds(layer, rows[:1]))
        together = min(together, _seconds(layer, rows[:full]))
        if time.perf_counter() > until:
            break
    return together > _DEARER * alone


def _not_exact(layer: Linear, inputs: int, rows: Tensor, trial: Trial) -> Trial:
    """The trial with the difference that remains."""
    counts = sorted({filled(count, trial) for count in _SAMPLE})
    return Trial(trial.rows, spread(layer, inputs, rows, counts))


def spread(layer: Compute, inputs: int, rows: Tensor, counts: Sequence[int]) -> float:
    """How far a row may be from itself in passes of so many rows, ascending, see `Trial`: that of
    ordinary sums, and that of `rows`, of which there is one more than in the largest pass, and
    whose terms cancel out, as a part of what ordinary rows come to."""
    rows = rows[: counts[-1] + 1]
    usual = ordinary(len(rows), inputs).to(rows.device, rows.dtype)
    size = torch.linalg.vector_norm(in_passes(layer, usual, _MOST).float(), dim=1)
    expected = [(given, in_passes(layer, given, _MOST)) for given in (usual, rows)]
    found = 0.0
    for count in counts:
        for (given, wanted), first in product(expected, (0, 1)):
            part = slice(first, first + count)
            apart = layer(given[part]).float() - wanted[part].float()
            ratios = torch.linalg.vector_norm(apart, dim=1) / size[part]
            ratio = float(ratios.max())
            if not math.isfinite(ratio):  # it gives no numbers
                return UNTRIED
            found = max(found, ratio)
    return found


def filled(rows: int, trial: Trial) -> int:
    """How many rows are computed for so many, of at most `trial.most`."""
    return next(count for count in trial.rows if count >= rows)


def in_passes(layer: Compute, rows: Tensor, order: int) -> Tensor:
    """All rows, in passes of `order`; the last one is filled up."""
    short = -len(rows) % order
    full = torch.cat((rows, rows[:1].expand(short, -1)))
    return torch.cat([layer(part) for part in torch.split(full, order)])[: len(rows)]


def _seconds(layer: Linear, rows: Tensor) -> float:
    """The least time of a few passes."""

    def once() -> float:
        begin = time.perf_counter()
        layer(rows)[0, 0].item()
        return time.perf_counter() - begin

    once()  # finds its kernel
    return min(once() for _ in range(3))
