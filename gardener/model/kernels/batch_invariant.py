"""Batch-invariant linear layers: a row gives the same bits whatever rows are computed beside it.

A row may be computed alone in one run and among others in the next. If its result depended on
that, greedy text would depend on what was speculated. When a layer is built, its kernel is tried
(`trial.py`, `device_trial.py`) on a synthetic layer of the same shape, with the threads and on the
device that it will have. Where it adds up in another order for some numbers of rows, rows are
padded to a number where it does not, and passes of more rows than keep to the order are cut.
`Linear.spread` tells what remains.
"""

import functools
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from gardener.model.device.sizes import FEW, ROWS
from gardener.model.kernels import device_trial, machine
from gardener.model.kernels.interface import Linear, Make
from gardener.model.kernels.synthetic import repeated, tile
from gardener.model.kernels.trial import Trial, filled, tried
from gardener.model.kernels.trials_kept import trials

MakeSynthetic: TypeAlias = Callable[[Tensor, int], Linear]
"""A layer with this many outputs, whose weights repeat those of a tile [TILE, inputs] in float32
(`synthetic.repeated`): a kind that rounds weights needs to round the tile alone."""


def batch_invariant(
    make: Make, weight: Tensor, bias: Tensor | None, kind: str | None = None
) -> Linear:
    """A layer from `make`, padded where that makes it batch-invariant. `kind`: a name for what
    `make` makes; None: its own."""
    outputs, inputs = weight.shape
    dtype, device = weight.dtype, weight.device

    def synthetic(part: Tensor, count: int) -> Linear:
        zeros = None if bias is None else torch.zeros(count, dtype=dtype, device=device)
        return make(repeated(part.to(device, dtype), count), zeros)

    name = f"{kind or _name(make)}{'' if bias is None else ' biased'}"
    layer = make(weight, bias)
    return padded(layer, name, synthetic, outputs, inputs, dtype, device)


def padded(
    layer: Linear,
    kind: str,
    synthetic: MakeSynthetic,
    outputs: int,
    inputs: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    rounds: bool = False,
    few: bool = False,
) -> "Padded":
    """A layer that was made already, padded where that makes it batch-invariant.

    kind       a name for this kind of kernel, with all that chooses what it runs but the shape
    synthetic  makes another one of this kind
    dtype      of the rows
    rounds     whether rows are rounded, see `trial.tried`; on a device, all are tried as if so
    few        whether passes of `sizes.FEW` rows take less time on a device, and are tried, too
    """
    own = machine.has_own_kernels(device)
    sizes = (*FEW, *ROWS) if few else ROWS

    def attempt() -> Trial:
        again = synthetic(tile(inputs), outputs)
        if own:
            return device_trial.tried(again, inputs, dtype, device, sizes)
        return tried(again, inputs, dtype, device, rounds)

    how = f"passes of {sizes}" if own else f"{torch.get_num_threads()} threads"
    what = f"{kind} {outputs}x{inputs} {dtype} {machine.device_name(device)} {how}"
    return Padded(layer, trials().of(what, attempt))


def _name(make: Make) -> str:
    if isinstance(make, functools.partial):
        raise ValueError(f"say what kind of kernel {make.func} makes")
    return f"{make.__module__}.{make.__qualname__}"


class Padded:
    """A layer whose kernel adds up some numbers of rows in another order than most. Those are
    padded to a number that it adds up as usual, and passes of very many are cut."""

    def __init__(self, inner: Linear, trial: Trial) -> None:
        self._inner, self._most = inner, trial.most
        self._full = [0, *(filled(rows, trial) for rows in range(1, trial.most + 1))]
        self.nbytes, self.spread = inner.nbytes, trial.spread

    def keeps(self, rows: int) -> bool:
        """Whether so many rows are computed as they are."""
        return rows <= self._most and self._full[rows] == rows

    def __call__(self, x: Tensor) -> Tensor:
        rows = len(x)
        if rows > self._most:
            return torch.cat([self(part) for part in torch.split(x, self._most)])
        full = self._full[rows]
        if full == rows:
            return self._inner(x)
        return self._inner(torch.cat((x, x[-1:].expand(full - rows, -1))))[:rows]
