"""Tries in which numbers of rows a kernel adds up every row in the same order.

Kernels work on blocks of rows, and a block of few may have an order of its own, as may a pass of
many; which ones they take depends on the shape, the dtype, the number of threads and the device.
So the very layer is tried, see `batch_invariant.py`.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product, takewhile

import torch
from torch import Tensor

from gardener.model.kernels.interface import Linear
from gardener.model.kernels.synthetic import cancelling, ordinary

_FEW = (*range(1, 10), 12, 15, 16, 17)
"""Numbers of rows that are tried whatever it takes."""

_MORE = ((1.0, (64, 48, 24)), (0.15, (128, 32, 31, 33, 256, 512)))
"""Those that are tried in this order as long as they take no more than so many seconds."""

_STEPS = (1, 2, 3, 4, 6, 8, 12, 16)
_CHEAP = 4  # a step up to this is taken without a look at others
_ORDERS = (64, 16, 8)  # passes of so many rows, whose order of summing the others are held to
_MOST = 16  # least rows that must be left in one pass
_SAMPLE = (1, 2, 3, 5, 8, 16)  # numbers of rows that tell how far a row may be from itself
_ROUNDS, _TIMING = 6, 0.3  # most rounds of timing, in turns, and seconds after which it ends
_DEARER = 1.1  # in float32, filling up may make a row alone take so much longer


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    step    rows are filled up to a multiple of this
    alike   numbers of rows that need no filling up, though they are no multiples
    most    rows of one pass: what is more is computed in several
    spread  the largest difference of a row to itself in another batch that remains then, as a part
            of its size (the norm of the difference by that of the row); 0.0: there is none
    """

    step: int
    alike: tuple[int, ...]
    most: int
    spread: float


@torch.inference_mode()
def tried(
    layer: Linear, inputs: int, dtype: torch.dtype, device: torch.device, rounds: bool = False
) -> Trial:
    """Try a layer whose weights are made of `synthetic.tile`, with rows of this dtype. `rounds`:
    whether it rounds its rows, so that the last bit of one may count for much in the next layer."""
    counts = _affordable(layer, cancelling(_MOST, inputs).to(device, dtype))
    rows = cancelling(counts[-1], inputs).to(device, dtype)
    given = [rows]
    if rounds:  # parts of sums are made in integers, where what cancels out leaves no error
        given.append(ordinary(counts[-1], inputs).to(device, dtype))
    found: list[Trial] = []
    for order in _ORDERS:
        if order <= counts[-1]:
            alike = [_agreeing(layer, each, counts, order) for each in given]
            found += _filled_up(counts, set.intersection(*alike))
        if found and found[-1].step <= _CHEAP:
            break
    if not found:  # of two, which at least keeps rows alone out of kernels for one
        return _not_exact(layer, inputs, rows, Trial(2, (), counts[-1], 0.0))
    best = min(found, key=lambda each: each.step)
    if dtype == torch.float32 and not rounds and _dear(layer, rows, best):
        return _not_exact(layer, inputs, rows, replace(best, step=1, alike=()))
    return best


def _affordable(layer: Linear, rows: Tensor) -> list[int]:
    """The numbers of rows, ascending, that can be tried in the time that there is."""
    one_row = _seconds(layer, rows) / len(rows)
    counts = list(_FEW)
    for seconds, more in _MORE:
        ends = accumulate(one_row * count * 2 for count in more)  # once for what is expected
        counts += [count for count, end in zip(more, ends, strict=True) if end <= seconds]
    return sorted(counts)


def _agreeing(layer: Linear, rows: Tensor, counts: Sequence[int], order: int) -> set[int]:
    """The numbers of rows that give every row the bits which it has in passes of `order` rows, at
    any place there: none if it is not the same at all."""
    expected = _whole(layer, rows, order)
    if not torch.equal(layer(rows[:order].roll(1, 0)), expected[:order].roll(1, 0)):
        return set()
    return {count for count in counts if torch.equal(layer(rows[:count]), expected[:count])}


def _filled_up(counts: Sequence[int], agreeing: set[int]) -> Iterable[Trial]:
    """The least step in whose multiples all agree, up to as many rows as they do."""
    for step in _STEPS:
        multiples = [count for count in counts if count % step == 0]
        good = list(takewhile(agreeing.__contains__, multiples))
        if good and good[-1] >= _MOST:
            others = (n for n in sorted(agreeing) if n % step and n < good[-1])
            yield Trial(step, tuple(others), good[-1], 0.0)
            return


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
    """The trial with the difference that remains: that of ordinary sums, and that of `rows`, whose
    terms cancel out, as a part of what ordinary rows come to."""
    counts = sorted({filled(count, trial) for count in _SAMPLE})
    rows = rows[: counts[-1] + 1]
    usual = ordinary(len(rows), inputs).to(rows.device, rows.dtype)
    size = torch.linalg.vector_norm(_whole(layer, usual, _MOST).float(), dim=1)
    expected = [(given, _whole(layer, given, _MOST)) for given in (usual, rows)]
    spread = 0.0
    for count in counts:
        for (given, wanted), first in product(expected, (0, 1)):
            part = slice(first, first + count)
            apart = layer(given[part]).float() - wanted[part].float()
            ratios = torch.linalg.vector_norm(apart, dim=1) / size[part]
            spread = max(spread, float(ratios.max()))
    return replace(trial, spread=spread if math.isfinite(spread) else 1.0)


def filled(rows: int, trial: Trial) -> int:
    """How many rows are computed for so many, of at most `trial.most`."""
    while rows % trial.step and rows not in trial.alike:
        rows += 1
    return rows


def _whole(layer: Linear, rows: Tensor, order: int) -> Tensor:
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
