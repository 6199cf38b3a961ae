"""Tries which sizes of a pass on a device (`device/sizes.py`) give a row the same bits.

Kernels there are chosen by the number of rows, too. But a pass has one of few sizes, so these alone
are tried. Sizes that agree with one another are a class; a layer keeps to one of them, and fills up
or cuts passes of the other sizes (`batch_invariant.Padded`). Which class, time decides: in float32
hardly two sizes agree, and what serves all of them best need not be the first.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from gardener.model.device.sizes import ROWS, filled
from gardener.model.kernels.device_clock import seconds
from gardener.model.kernels.interface import Linear
from gardener.model.kernels.synthetic import cancelling, ordinary
from gardener.model.kernels.trial import Compute, Trial, agreeing, spread

Clock: TypeAlias = Callable[[Callable[[], object], torch.device], float]
"""Seconds that a run takes on a device."""

_WEIGHTS = dict(zip(ROWS, (4, 2, 1, 1), strict=True))
"""How much passes of each size count: most are of few rows."""

_ELSEWHERE = 7  # places by which rows are moved on, and so come to other neighbours


@torch.inference_mode()
def tried(
    layer: Linear,
    inputs: int,
    dtype: torch.dtype,
    device: torch.device,
    sizes: Sequence[int] = ROWS,
    clock: Clock = seconds,
) -> Trial:
    """Try a layer whose weights are made of `synthetic.tile`, with rows of this dtype, in passes of
    these sizes (ascending). Where none of them gives a row the same bits at all of its places, all
    are good, and the spread says how far a row may be from itself."""

    def compute(rows: Tensor) -> Tensor:
        return layer(rows.clone())  # at an address like that of a pass, which decides, too

    most = sizes[-1]
    rows = cancelling(most + 1, inputs).to(device, dtype)
    for size in sizes:
        compute(rows[:size])  # loads its kernels, or fails, before anything is compared
    usual = ordinary(most + 1, inputs).to(device, dtype)
    found = _classes(compute, (rows, rows.roll(_ELSEWHERE, 0), usual), sizes)
    if not found:
        # Rows that happen to agree this time may not be told to be exact.
        least = torch.finfo(dtype).eps
        return Trial(tuple(sizes), max(spread(compute, inputs, rows, sizes), least))
    if len(found) == 1:
        return Trial(found[0], 0.0)
    times = {size: clock(partial(layer, rows[:size]), device) for size in sizes}
    return Trial(min(found, key=lambda good: _cost(times, good)), 0.0)


def _classes(
    compute: Compute, given: Sequence[Tensor], sizes: Sequence[int]
) -> list[tuple[int, ...]]:
    """The classes of sizes, each ascending, that give all of these rows the same bits; those of
    many rows first."""
    found: list[tuple[int, ...]] = []
    left = list(sizes)
    while left:
        order = left[-1]
        alike = set.intersection(*(agreeing(compute, rows, left, order) for rows in given))
        if alike:
            found.append(tuple(sorted(alike)))
        left = [size for size in left if size != order and size not in alike]
    return found


def _cost(times: Mapping[int, float], good: Sequence[int]) -> float:
    """What passes of all sizes take, as they count, where only these are computed."""
    return sum(weight * _seconds(times, good, rows) for rows, weight in _WEIGHTS.items())


def _seconds(times: Mapping[int, float], good: Sequence[int], rows: int) -> float:
    """Of a pass of so many rows: cut, and what is left is filled up."""
    whole, left = divmod(rows, good[-1])
    return whole * times[good[-1]] + (times[filled(left, good)] if left else 0.0)
