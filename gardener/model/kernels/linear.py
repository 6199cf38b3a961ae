"""One linear layer, in the form that is fastest where it runs."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.kernels import device_clock, machine
from gardener.model.kernels.batch_invariant import batch_invariant
from gardener.model.kernels.interface import Linear, Make
from gardener.model.kernels.packed import PACKED
from gardener.model.kernels.plain import Plain
from gardener.model.kernels.widened import WIDENED

CPU_KERNELS = (
    WIDENED,
    PACKED,
)
"""The first one that pays is taken; the plain matrix product if none does."""


def linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """The fastest form for weights [outputs, inputs] in the dtype and on the device they have,
    batch-invariant if it can be."""
    return _fastest(weight, lambda make: batch_invariant(make, weight, bias))


def untried_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """The same for a drafter, whose rows may depend on their batch: the target checks them."""
    return _fastest(weight, lambda make: make(weight, bias))


def _fastest(weight: Tensor, build: Callable[[Make], Linear]) -> Linear:
    kernels = CPU_KERNELS if weight.device.type == "cpu" else ()
    for kernel in kernels:
        if kernel.pays(weight.dtype):
            with suppress(OverflowError):
                return build(kernel.make)
    return build(Plain)


def least_seconds(run: Callable[[], Tensor]) -> float:
    """The least time of a few runs: the first one finds its kernel, others may be disturbed."""

    def once() -> float:
        begin = time.perf_counter()
        run().sum().item()
        return time.perf_counter() - begin

    return min(once() for _ in range(5))


@cache
def quick_dtype(device: str) -> str:
    """bfloat16 or float32: in which of them this device multiplies faster. Tried out: a processor
    without instructions for 16 bits takes several times as long with them. Others take longer to
    start than to run so little: they tell the time themselves."""
    where, seconds = torch.device(device), {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        x = torch.ones(256, 1024, device=device, dtype=dtype)
        weight = torch.ones(1024, 1024, device=device, dtype=dtype)
        run = partial(F.linear, x, weight)
        own = machine.has_own_kernels(where)
        seconds[name] = device_clock.seconds(run, where) if own else least_seconds(run)
    return min(seconds, key=lambda name: seconds[name])
