"""Linear layers in 8 bits on the CPU, for drafters: the target checks what they propose anyway.

A drafter runs for few rows at a time, so its time is that of reading its weights: a quarter of the
bytes takes about a quarter of the time. Weights have a scale for each output, and rows have one
each when they are quantised on the way.

torch plans to remove the functions used here. Where they are gone, or are not faster, a drafter
computes in a float type.
"""

import warnings
from functools import cache, partial

import torch
from torch import Tensor

from gardener.model.kernels.interface import UNTRIED
from gardener.model.kernels.linear import least_seconds, untried_linear

_HIGHEST = 63
"""Of a weight: two products with an unsigned byte of a row fit into 16 bits, in which the kernel of
a processor without VNNI adds up pairs. Rows need their 8 bits more, for they have outliers."""

_MARGIN = 0.8
"""Share of the time of a float layer that an int8 one may take, to be worth having."""

_TRIAL = (2048, 4096)
"""Outputs and inputs of the layers that are compared. Small ones take too little time to tell."""


class Int8Linear:
    """Weights [outputs, inputs] in int8; rows and results are float32."""

    spread = UNTRIED

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Raises RuntimeError or AttributeError where torch cannot."""
        scales = weight.float().abs().amax(1).clamp_min(1e-12) / _HIGHEST
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it will be given up
            steps = torch.quantize_per_channel(
                weight.float(), scales.double(), zeros, 0, torch.qint8
            )
        self._packed = torch.ops.quantized.linear_prepack(steps, None)
        self._bias = bias
        self.nbytes = weight.numel() + 8 * len(weight) + (0 if bias is None else bias.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        """Rows [n, inputs] to rows [n, outputs]."""
        # The kernel has one scale for all of them, so they are made equally large before.
        size = x.abs().amax(-1, keepdim=True).clamp_min(1e-12)
        y: Tensor = torch.ops.quantized.linear_dynamic(x / size, self._packed, False).mul_(size)
        return y if self._bias is None else y.add_(self._bias)


@cache
def int8_works() -> bool:
    """Whether this build of torch has int8 layers for this CPU. Tried out, not guessed."""
    x = torch.linspace(-1, 1, 64).view(4, 16)
    try:
        return torch.allclose(Int8Linear(torch.eye(16), None)(x), x, atol=0.02)
    except (RuntimeError, AttributeError):
        return False


@cache
def int8_pays() -> bool:
    """Whether they are much faster here than float32 layers of a 16-bit checkpoint."""
    if not int8_works():
        return False
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(_TRIAL, generator=draw), torch.randn(4, _TRIAL[1], generator=draw)
    int8, rival = Int8Linear(weight, None), untried_linear(weight.bfloat16().float(), None)
    return least_seconds(partial(int8, x)) < _MARGIN * least_seconds(partial(rival, x))
