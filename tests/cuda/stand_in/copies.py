"""Copies. Those between the device and the processor are the runtime's own; only what has to be
brought into another shape or type is done on the device, before or after."""

from typing import Any

import torch
from torch import Tensor

from stand_in.aliases import CUDA, alias, on_device
from stand_in.operations import aten
from stand_in.runtime import push


def copy(to: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """`to.copy_(source)`, where at least one is on the device."""
    if on_device(to) and on_device(source):
        aten.copy_.default(to, source, non_blocking)
        _queue(to, source)
    elif on_device(to):
        _up(to, source, non_blocking)
    else:
        aten.copy_.default(to, _ready(to, source), non_blocking)
    return to


def converted(source: Tensor, **how: Any) -> Tensor:
    """`source.to(...)`. What comes from the device without waiting comes into pinned memory."""
    dtype, device = how.get("dtype") or source.dtype, how.get("device") or source.device
    non_blocking = bool(how.get("non_blocking"))
    out = torch.empty_like(
        source,
        dtype=dtype,
        device=device,
        memory_format=how.get("memory_format") or torch.preserve_format,
        pin_memory=non_blocking and on_device(source) and torch.device(device).type == "cpu",
    )
    return copy(out, source, non_blocking)


def _up(to: Tensor, source: Tensor, non_blocking: bool) -> None:
    if to.numel() == 0:
        return
    if not _alike(to, source):
        source = source.to(to.dtype).expand_as(to).contiguous()
    if to.is_contiguous():
        aten.copy_.default(to, source, non_blocking)
        return
    between = torch.empty(to.shape, dtype=to.dtype, device=CUDA)
    aten.copy_.default(between, source, non_blocking)
    _queue(to, between)


def _ready(to: Tensor, source: Tensor) -> Tensor:
    """In the shape and type in which it will arrive."""
    if _alike(to, source):
        return source
    between = torch.empty(to.shape, dtype=to.dtype, device=CUDA)
    _queue(between, source)
    return between


def _alike(to: Tensor, source: Tensor) -> bool:
    return source.dtype == to.dtype and source.shape == to.shape and source.is_contiguous()


def _queue(to: Tensor, source: Tensor) -> None:
    target, values = alias(to), alias(source)
    push(lambda: target.copy_(values), "copy")
