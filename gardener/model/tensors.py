"""torch tensors to and from the bytes that cross the wire.

Bytes are little-endian in C order, so this runs on little-endian machines, as torch itself does.
"""

import sys

import numpy as np
import torch

from gardener.errors import LocalError, RemoteError, UserError
from gardener.protocol.tensors import DType, Tensor

DTYPES: dict[DType, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

if sys.byteorder != "little":
    raise LocalError("tensors cross the wire little-endian; this machine is not")


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of this name. Raises UserError."""
    for known, dtype in DTYPES.items():
        if known == name:
            return dtype
    raise UserError(f"dtype '{name}' is not one of {', '.join(DTYPES)}")


def pack(tensor: torch.Tensor) -> Tensor:
    """A message from a tensor."""
    name = next(name for name, dtype in DTYPES.items() if dtype == tensor.dtype)
    if tensor.numel() == 0:
        return Tensor(name, tuple(tensor.shape), b"")
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return Tensor(name, tuple(tensor.shape), raw.tobytes())


def unpack_into(target: torch.Tensor, tensor: Tensor) -> None:
    """Copy a message into a contiguous CPU tensor of its shape and dtype. Raises RemoteError.

    Received bytes are read-only, so one copy is needed anyway; several messages of one forward
    pass land side by side in one tensor.
    """
    if tuple(target.shape) != tensor.shape or DTYPES[tensor.dtype] != target.dtype:
        raise RemoteError(
            f"expected {str(target.dtype)[6:]} of shape {tuple(target.shape)}, "
            f"got {tensor.dtype} of shape {tensor.shape}"
        )
    if target.numel():
        raw = target.reshape(-1).view(torch.uint8).numpy()
        raw[:] = np.frombuffer(tensor.data, np.uint8)


def unpack(tensor: Tensor) -> torch.Tensor:
    """A CPU tensor from a message."""
    target = torch.empty(tensor.shape, dtype=DTYPES[tensor.dtype])
    unpack_into(target, tensor)
    return target
