"""Which kind of quantisation a stage takes, and what its user should know of it."""

from collections.abc import Callable

import torch

from gardener.errors import UserError
from gardener.model.kernels.quickest import quickest_of_4_bits, seconds
from gardener.model.loader import device_of
from gardener.model.quants import AUTO
from gardener.model.tensors import dtype_of

_RIVALS = {"nf4": "int4", "fp4": "int4", "llm-int8": "int8"}
"""Kinds of bitsandbytes, and what has as many bits on every CPU."""

_SLOW = 1.5
"""How many times as long as its rival a kind takes that one should know of."""


def decided(quant: str, dtype: str, device: str, threads: int, say: Callable[[str], None]) -> str:
    """The kind that is meant by `--quant`, with so many threads on the CPU, which are set. Says
    what `auto` chose, and what is slow here. Raises UserError."""
    torch.set_num_threads(threads)
    if quant == AUTO:
        chosen = quickest_of_4_bits(device_of(device), dtype_of(dtype))
        say(f"--quant auto: {chosen} is the fastest kind of 4 bits here")
        return chosen
    if quant in _RIVALS and device_of(device).type == "cpu":
        times = _times(quant, _RIVALS[quant], dtype_of(dtype))
        if times is not None and times > _SLOW:
            say(f"{quant} takes {times:.1f} times what {_RIVALS[quant]} takes on this processor")
    return quant


def _times(quant: str, rival: str, dtype: torch.dtype) -> float | None:
    """How many times as long as its rival a kind takes; None: the rival cannot be had."""
    try:
        return seconds(quant, dtype) / seconds(rival, dtype)
    except UserError:
        return None
