"""Which kind of quantisation a stage takes, and what its user should know of it."""

from collections.abc import Callable

import torch

from gardener.errors import UserError
from gardener.model.device.named import device_of
from gardener.model.kernels import machine
from gardener.model.kernels.quickest import quickest_of_4_bits, seconds
from gardener.model.quants import AUTO
from gardener.model.tensors import dtype_of

_RIVALS = {"nf4": "int4", "fp4": "int4", "llm-int8": "int8"}
"""Kinds of bitsandbytes, and what has as many bits on every CPU."""

_SLOW = 1.5
"""How many times as long as its rival a kind takes that one should know of."""

_SLOW_THERE = 1.1
"""The same on a device, where the rival is not to quantise."""


def decided(quant: str, dtype: str, device: str, threads: int, say: Callable[[str], None]) -> str:
    """The kind that is meant by `--quant`, with so many threads on the CPU, which are set. Says
    what `auto` chose, and what is slow here. Raises UserError."""
    torch.set_num_threads(threads)
    where, numbers = device_of(device), dtype_of(dtype)
    if numbers == torch.float32:  # before anything is tried in it
        machine.forbid_tf32(where)
    try:
        return _decided(quant, dtype, where, say)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{device} has too little memory left to try out --quant {quant}: free some, or take "
            "--quant none"
        ) from error


def _decided(quant: str, dtype: str, where: torch.device, say: Callable[[str], None]) -> str:
    """See `decided`. Raises torch.OutOfMemoryError, too."""
    numbers = dtype_of(dtype)
    if quant == AUTO:
        quant = quickest_of_4_bits(where, numbers)
        say(f"--quant auto: {quant} is the fastest kind of 4 bits here")
    elif quant in _RIVALS and not machine.has_own_kernels(where):
        times = _times(quant, _RIVALS[quant], numbers, where)
        if times > _SLOW:
            say(f"{quant} takes {times:.1f} times what {_RIVALS[quant]} takes on this processor")
    if quant != "none" and machine.has_own_kernels(where):
        if quant in _RIVALS:
            seconds(quant, numbers, where)  # raises what it lacks
        times = _times(quant, "none", numbers, where)
        if times > _SLOW_THERE:
            say(
                f"{quant} takes {times:.1f} times what {dtype} takes on this device: its use is to "
                "save memory"
            )
    return quant


def _times(quant: str, rival: str, dtype: torch.dtype, device: torch.device) -> float:
    """How many times as long as its rival a kind takes; 0: one of them cannot be had."""
    try:
        return seconds(quant, dtype, device) / seconds(rival, dtype, device)
    except UserError:
        return 0.0
