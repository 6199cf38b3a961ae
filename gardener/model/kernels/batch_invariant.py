"""Batch-invariant linear layers: a row gives the same bits whatever rows are computed beside it.

A row may be computed alone in one run and among others in the next. If its result depended on that,
greedy text in 16 bits would depend on what was speculated. When a layer is built, its kernel is
tried with different numbers of rows. Where it adds up in another order, rows are padded to a number
where it does not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.kernels.interface import Linear, Make

_TRIED_ROWS = 48  # up to how many rows a kernel is tried for its order of summing
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16)  # each divides _TRIED_ROWS

MakeSynthetic: TypeAlias = Callable[[Tensor, int], Linear]
"""A layer with this many outputs, whose weights repeat those of a tile [n, inputs] in float32: a
kind that rounds weights needs to round the tile alone."""


def batch_invariant(make: Make, weight: Tensor, bias: Tensor | None) -> Linear:
    """A layer from `make` that is batch-invariant in 16 bits.

    In float32 a row may differ by the order of a sum, which is far too little to decide a token.
    """
    layer = make(weight, bias)
    if weight.dtype == torch.float32:
        return layer
    step, alike = _order_of_summing(make, weight.shape[1], weight.dtype, weight.device)
    return layer if step == 1 else _Padded(layer, step, alike)


def padded(
    layer: Linear,
    kind: str,
    synthetic: MakeSynthetic,
    outputs: int,
    inputs: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Linear:
    """A layer that was made already, padded where that makes it batch-invariant.

    kind       a name for this kind of kernel, with all that chooses what it runs but the shape
    synthetic  makes another one of this kind
    dtype      of the rows
    """
    step, alike = _order_of_summing(_Synthetic(synthetic, outputs), inputs, dtype, device)
    return layer if step == 1 else _Padded(layer, step, alike)


@dataclass(frozen=True)
class _Synthetic:
    """A `MakeSynthetic` as a `Make`."""

    make: MakeSynthetic
    outputs: int

    def __call__(self, weight: Tensor, bias: Tensor | None) -> Linear:
        return self.make(weight.float(), self.outputs)


@cache
def _order_of_summing(
    make: Make, inputs: int, dtype: torch.dtype, device: torch.device
) -> tuple[int, frozenset[int]]:
    """The least step in whose multiples this kernel adds up every row in the same order, and the
    other numbers of rows, of those that were tried, which it adds up in that order too.

    Kernels work on blocks of rows, and a block of one or two may have an order of its own. Tried on
    sums whose terms cancel out, in blocks of 64 with weights i and i + 32 alike: what is left is
    the error of the order itself, where ordinary sums would mostly round it away. Tried on ordinary
    rows as well: in a kernel that makes parts of a sum in integers, terms may cancel out without
    any error. A kernel for which no step holds gets one of 2, which at least keeps lone rows out of
    kernels for one.
    """
    inputs = max(inputs, 64)
    random = torch.Generator().manual_seed(1)
    blocks = max(inputs // 64, 1)
    weight = torch.randn(64, blocks, 1, 32, generator=random).repeat(1, 1, 2, 1)
    half = torch.randn(_TRIED_ROWS, blocks, 1, 32, generator=random)
    rows = torch.cat((half, -half), 2)
    weight, rows = (F.pad(t.flatten(1), (0, inputs))[:, :inputs] for t in (weight, rows))
    weight, rows = weight.to(device, dtype), rows.to(device, dtype)
    layer = make(weight, None)
    ordinary = torch.randn(_TRIED_ROWS, inputs, generator=random).to(device, dtype)
    counts = range(1, _TRIED_ROWS + 1)
    alike = frozenset(counts)
    for given in (rows, ordinary):
        whole = layer(given)
        alike &= {n for n in alike if torch.equal(layer(given[:n]), whole[:n])}
    step = next((step for step in _STEPS if alike.issuperset(counts[step - 1 :: step])), 2)
    return step, alike


class _Padded:
    """A layer whose kernel adds up some numbers of rows in another order than most. Those are
    padded to a number that it adds up as usual."""

    def __init__(self, inner: Linear, step: int, alike: frozenset[int]) -> None:
        self._inner, self._step, self._alike = inner, step, alike
        self.nbytes = inner.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        rows = full = len(x)
        while full % self._step and full not in self._alike:
            full += 1
        if full == rows:
            return self._inner(x)
        return self._inner(torch.cat((x, x[-1:].expand(full - rows, -1))))[:rows]
