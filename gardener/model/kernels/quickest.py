"""How long kinds of quantisation take here, tried on a layer of the size that large models have."""

from functools import cache, partial

import torch

from gardener.errors import UserError
from gardener.model.kernels.bitsandbytes_linear import quantised
from gardener.model.kernels.grouped_linear import grouped_linear
from gardener.model.kernels.interface import Linear
from gardener.model.kernels.linear import least_seconds
from gardener.model.kernels.rounding import rounded
from gardener.model.quants import GROUP, GROUPED

_OUTPUTS, _INPUTS = 2048, 4096
_ROWS = (1, 4)
"""Passes that are timed: of a row alone, and of a few guesses."""

_CLEARLY = 0.8
"""Part of another kind's time that makes one the faster one: less may be chance, and every stage of
a ring is to choose the same."""

_FIRST_OF_4_BITS = "int4"
_OTHER_OF_4_BITS = "nf4"


def quickest_of_4_bits(device: torch.device, dtype: torch.dtype) -> str:
    """The kind of 4 bits that is fastest there: int4, unless another one clearly is, or int4 cannot
    be had. Raises UserError if none can."""
    if device.type != "cpu":
        return _OTHER_OF_4_BITS
    try:
        first = seconds(_FIRST_OF_4_BITS, dtype)
    except UserError:
        seconds(_OTHER_OF_4_BITS, dtype)  # raises what it lacks
        return _OTHER_OF_4_BITS
    try:
        other = seconds(_OTHER_OF_4_BITS, dtype)
    except UserError:
        return _FIRST_OF_4_BITS
    return _OTHER_OF_4_BITS if other < _CLEARLY * first else _FIRST_OF_4_BITS


@cache
def seconds(quant: str, dtype: torch.dtype) -> float:
    """That a layer of this kind takes on the CPU, for all of `_ROWS`. Raises UserError if a package
    is missing."""
    draw = torch.Generator().manual_seed(0)
    layer = _layer(quant, torch.randn(_OUTPUTS, _INPUTS, generator=draw) / 50, dtype)
    x = torch.randn(max(_ROWS), _INPUTS, generator=draw).to(dtype)
    return sum(least_seconds(partial(layer, x[:rows])) for rows in _ROWS)


def _layer(quant: str, weight: torch.Tensor, dtype: torch.dtype) -> Linear:
    if quant in GROUPED:
        return grouped_linear([rounded(weight, GROUPED[quant], GROUP)], None)
    return quantised(quant)(weight.to(dtype), None)
