"""What kind of operation one is. Each is asked thousands of times."""

from functools import cache
from typing import Any

import torch

aten = torch.ops.aten

_has_own = torch._C._dispatch_has_kernel_for_dispatch_key
_has = torch._C._dispatch_has_computed_kernel_for_dispatch_key

EMPTY = {
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
    aten.empty_permuted,
}
"""Take memory, and leave in it whatever is there."""

_WITHOUT_VALUES = {aten.resize_, aten.set_, aten.record_stream, aten._local_scalar_dense}
"""Are about memory, or copy it by the runtime itself."""


@cache
def is_composite(func: Any) -> bool:
    """Whether it consists of others, on the device."""
    name = func.name()
    return bool(_has_own(name, "CompositeImplicitAutograd") and not _has_own(name, "CUDA"))


@cache
def is_without_kernel(func: Any) -> bool:
    """Whether nothing is computed: views, and what is about memory alone."""
    if func.overloadpacket in _WITHOUT_VALUES:
        return True
    aliases = [part.alias_info for part in func._schema.returns]
    return not writes(func) and any(each is not None and not each.is_write for each in aliases)


@cache
def writes(func: Any) -> bool:
    """Whether it writes into an argument."""
    return any(part.alias_info and part.alias_info.is_write for part in func._schema.arguments)


@cache
def makes(func: Any) -> bool:
    """Whether it gives tensors that were not there before."""
    return any(part.alias_info is None for part in func._schema.returns)


@cache
def waits(func: Any) -> bool:
    """Whether what it gives, or its size, has to be fetched from the device first."""
    tags = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
    return func is aten.equal.default or not tags.isdisjoint(func.tags)


@cache
def is_random(func: Any) -> bool:
    """Whether it draws numbers. CUDA draws others than the processor."""
    return torch.Tag.nondeterministic_seeded in func.tags


@cache
def has_kernel(func: Any, place: str) -> bool:
    """Whether there is one at "CPU" or "CUDA"."""
    return bool(_has(func.name(), place))
