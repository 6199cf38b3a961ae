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
    """The kind of 4 bits that is fastest there: int4, unless another one clearly is, and is exact,
    or int4 cannot be had. Raises UserError if none can."""
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
    wins = other < _CLEARLY * first and spread(_OTHER_OF_4_BITS, dtype) == 0.0
    return _OTHER_OF_4_BITS if wins else _FIRST_OF_4_BITS


@cache
def seconds(quant: str, dtype: torch.dtype) -> float:
    """That a layer of this kind takes on the CPU, for all of `_ROWS`. Raises UserError if a package
    is missing."""
    layer, x = _layer(quant, dtype), _drawn(max(_ROWS), 1).to(dtype)
    return sum(least_seconds(partial(layer, x[:rows])) for rows in _ROWS)


def spread(quant: str, dtype: torch.dtype) -> float:
    """How far a row of this layer may be from itself in another batch, see `interface.Linear`."""
    return _layer(quant, dtype).spread


def _drawn(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, _INPUTS, generator=torch.Generator().manual_seed(seed))


def _layer(quant: str, dtype: torch.dtype) -> Linear:
    weight = _drawn(_OUTPUTS, 0) / 50
    if quant in GROUPED:
        return grouped_linear([rounded(weight, GROUPED[quant], GROUP)], None)
    return quantised(quant)(weight.to(dtype), None)
