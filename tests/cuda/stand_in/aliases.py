"""Memory of the device as the processor sees it: the same, for here it is memory of the process."""

import ctypes
from typing import Any, TypeGuard

import torch
from torch import Tensor

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)

_MOST = 20_000
"""Storages that are remembered."""

_storages: dict[tuple[int, int, torch.dtype], Tensor] = {}


def on_device(part: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor there."""
    return isinstance(part, Tensor) and part.device.type == "cuda"


def names_device(part: object) -> bool:
    """Whether an operation with that among its arguments is one on the device."""
    return on_device(part) or (isinstance(part, torch.device) and part.type == "cuda")


def seen_from_here(part: Any) -> Any:
    """An argument for the operation on the processor. Numbers from there are taken as they are now,
    as the launch of a kernel does."""
    if isinstance(part, torch.device):
        return CPU if part.type == "cuda" else part
    if on_device(part):
        return alias(part)
    return part.clone() if isinstance(part, Tensor) and part.device.type == "cpu" else part


def alias(tensor: Tensor) -> Tensor:
    """A tensor on the processor with the same memory. It does not keep that from being given back,
    as a kernel that is queued does not."""
    size = tensor.untyped_storage().nbytes()
    if tensor.numel() == 0 or size == 0:
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)
    whole = _storage(tensor.untyped_storage().data_ptr(), size, tensor.dtype)
    return whole.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def _storage(address: int, size: int, dtype: torch.dtype) -> Tensor:
    key = address, size, dtype
    if key not in _storages:
        if len(_storages) >= _MOST:
            _storages.clear()
        memory = (ctypes.c_char * size).from_address(address)
        _storages[key] = torch.frombuffer(memory, dtype=dtype, count=size // dtype.itemsize)
    return _storages[key]
