"""Linear layers of `Grouped` weights on a device: in 4 bits where a kernel takes them, else widened
once, when they are loaded: the same numbers, in the memory of the stage's dtype."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gardener.model.device.sizes import FEW
from gardener.model.finite import in_dtype
from gardener.model.kernels import int4_device
from gardener.model.kernels.batch_invariant import padded
from gardener.model.kernels.beside import Beside
from gardener.model.kernels.grouped import Grouped
from gardener.model.kernels.grouped_linear import repeated_weight, runs
from gardener.model.kernels.int4_device import Int4Linear
from gardener.model.kernels.interface import Linear
from gardener.model.kernels.linear import linear

_PART = 2**24
"""Weights that are widened together."""


@dataclass(frozen=True)
class Made:
    """A layer on a device.

    widened  how many of its weights were widened
    few      whether passes of `sizes.FEW` rows are computed as they are in a part of it at least
    """

    layer: Linear
    widened: int
    few: bool


def on_device(
    name: str,
    parts: Sequence[Grouped],
    bias: Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Made:
    """A batch-invariant layer out of weights that read the same rows, which are of this dtype. A
    bias is there already. Raises UserError for weights that are too large for `dtype`: `name` says
    whose."""
    found = runs(parts)
    if not any(int4_device.takes(run, device) for run in found):
        whole = _widened(name, found, dtype, device)
        return Made(linear(whole, bias), whole.numel(), few=False)
    heights = [run.shape[0] for run in found]
    biases = [None] * len(found) if bias is None else torch.split(bias, heights)
    made = [_one(name, *each, dtype, device) for each in zip(found, biases, strict=True)]
    if len(made) == 1:
        return made[0]
    layer = Beside([each.layer for each in made])
    return Made(layer, sum(each.widened for each in made), any(each.few for each in made))


def _one(
    name: str, weight: Grouped, bias: Tensor | None, dtype: torch.dtype, device: torch.device
) -> Made:
    if not int4_device.takes(weight, device):
        wide = _widened(name, [weight], dtype, device)
        return Made(linear(wide, bias), wide.numel(), few=False)
    layer = Int4Linear(weight, bias, device)
    kind = f"int4 in groups of {weight.group}{'' if bias is None else ' biased'}"

    def synthetic(part: Tensor, outputs: int) -> Linear:
        zeros = None if bias is None else torch.zeros(outputs, dtype=bias.dtype, device=device)
        return Int4Linear(repeated_weight(part, outputs, 4, weight.group), zeros, device)

    # Tried with rows in which it computes.
    found = padded(layer, kind, synthetic, *weight.shape, int4_device.DTYPE, device, few=True)
    return Made(found, 0, all(found.keeps(rows) for rows in FEW))


def _widened(
    name: str, weights: Sequence[Grouped], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The weights, their outputs one after the other, there and so: [outputs, inputs]. They are
    widened there, a part after the other: not all of them are there in float32, and none twice."""
    inputs, end = weights[0].shape[1], 0
    whole = torch.empty(sum(each.shape[0] for each in weights), inputs, dtype=dtype, device=device)
    for weight in weights:
        for part in torch.split(torch.arange(weight.shape[0]), max(_PART // inputs, 1)):
            wide = weight.rows(part).on(device).widened()
            whole[end : end + len(part)] = in_dtype(name, wide, device, dtype)
            end += len(part)
    return whole
