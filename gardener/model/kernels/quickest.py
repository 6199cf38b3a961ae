"""How long kinds of quantisation take here, tried on a layer of the size that large models have."""

from functools import cache, partial

import torch

from gardener.errors import GardenerError, UserError
from gardener.model.kernels import device_clock, int4_device, machine
from gardener.model.kernels.bitsandbytes_linear import quantised
from gardener.model.kernels.grouped_device import on_device
from gardener.model.kernels.grouped_linear import grouped_linear, repeated_weight
from gardener.model.kernels.interface import Linear
from gardener.model.kernels.linear import least_seconds, linear
from gardener.model.kernels.synthetic import TILE, repeated
from gardener.model.quants import GROUP, GROUPED

_OUTPUTS, _INPUTS = 2048, 4096
_OUTPUTS_THERE = 22016
"""On a device. As many as gate and up of Llama-2-7B have: it takes longer to compute than to
start."""

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
    try:
        first = seconds(_FIRST_OF_4_BITS, dtype, device)
    except UserError:
        seconds(_OTHER_OF_4_BITS, dtype, device)  # raises what it lacks
        return _OTHER_OF_4_BITS
    try:
        other = seconds(_OTHER_OF_4_BITS, dtype, device)
    except UserError:
        return _FIRST_OF_4_BITS
    wins = other < _CLEARLY * first and spread(_OTHER_OF_4_BITS, dtype, device) == 0.0
    return _OTHER_OF_4_BITS if wins else _FIRST_OF_4_BITS


@cache
def seconds(quant: str, dtype: torch.dtype, device: torch.device) -> float:
    """That a layer of this kind takes there, for all of `_ROWS`. Raises UserError if a package is
    missing, or the device does not compute it, and torch.OutOfMemoryError."""
    try:
        layer, x = _layer(quant, dtype, device), _drawn(max(_ROWS), 1).to(device, dtype)
        runs = [partial(layer, x[:rows]) for rows in _ROWS]
        if machine.has_own_kernels(device):
            return sum(device_clock.seconds(run, device) for run in runs)
        return sum(least_seconds(run) for run in runs)
    except (GardenerError, torch.OutOfMemoryError):  # the latter says nothing of the kind
        raise
    except Exception as error:  # whatever a package comes to on a device that it was not made for
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--quant {quant} does not work on {device} ({reason}): take another kind, or none"
        ) from error


def spread(quant: str, dtype: torch.dtype, device: torch.device) -> float:
    """How far a row of this layer may be from itself in another batch, see `interface.Linear`."""
    return _layer(quant, dtype, device).spread


def _drawn(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, _INPUTS, generator=torch.Generator().manual_seed(seed))


def _layer(quant: str, dtype: torch.dtype, device: torch.device) -> Linear:
    """Raises UserError for a kind of 4 bits that would be widened there."""
    own = machine.has_own_kernels(device)
    outputs, part = _OUTPUTS_THERE if own else _OUTPUTS, _drawn(TILE, 0) / 50
    if quant in GROUPED:
        weight = repeated_weight(part, outputs, GROUPED[quant], GROUP)
        if not own:
            return grouped_linear([weight], None)
        if not int4_device.takes(weight, device):
            raise UserError(f"--quant {quant} is widened on {device}: it has no kernel for it")
        return on_device("a trial", [weight], None, dtype, device).layer
    make = linear if quant == "none" else quantised(quant)
    return make(repeated(part.to(device, dtype), outputs), None)
