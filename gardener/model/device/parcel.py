"""What goes to a device in one copy: several tensors, at addresses that stay."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gardener.model.device.events import event, record

_ALIGNED = 256  # bytes: kernels read whole vectors


class Part(NamedTuple):
    """One tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]


class Parcel:
    """Zeros at first.

    here   the tensors in this machine's memory, to be written to after `wait`
    there  the same on the device, as they were at the last `send`
    """

    def __init__(self, parts: Mapping[str, Part], device: torch.device) -> None:
        places: dict[str, tuple[int, int]] = {}
        size = 0
        for name, part in parts.items():
            end = size + math.prod(part.shape) * part.dtype.itemsize
            places[name] = size, end
            size = -(-end // _ALIGNED) * _ALIGNED
        pinned = device.type == "cuda"
        self._here = torch.zeros(size, dtype=torch.uint8, pin_memory=pinned)
        self._there = torch.zeros(size, dtype=torch.uint8, device=device)
        self._sent = event() if pinned else None

        def cut(memory: Tensor) -> dict[str, Tensor]:
            return {
                name: memory[slice(*places[name])].view(part.dtype).view(part.shape)
                for name, part in parts.items()
            }

        self.here, self.there = cut(self._here), cut(self._there)

    def wait(self) -> None:
        """Until what is here may be written to: a copy of it may still be under way."""
        if self._sent is not None:
            self._sent.synchronize()

    def send(self) -> None:
        """Copy what stands here to the device, in turn with its other work."""
        self._there.copy_(self._here, non_blocking=True)
        if self._sent is not None:
            record(self._sent, self._there.device)
