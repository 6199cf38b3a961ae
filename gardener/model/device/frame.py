"""What a pass of one size reads, at fixed addresses: filled in here, and copied there in one go."""

import torch
from torch import Tensor

from gardener.model.device.events import event, record
from gardener.model.device.sizes import TAIL
from gardener.model.placement import Ints

POSITION, SLOT, CUT, FIRST_OF_TAIL = range(4)
"""Columns of `Frame.ints`. The tail of a row begins with the slot of the row at position `cut`, and
ends with its own; what follows is not looked at, but must be slots."""

COLUMNS = FIRST_OF_TAIL + TAIL

_ALIGNED = 256  # bytes: kernels read whole vectors


class Frame:
    """Room for `rows` rows.

    hidden  [rows, width], on the device
    ints    [rows, COLUMNS] int64, on the device
    own_hidden, own_ints  the same in this machine's memory, of which `send` makes a copy there
    """

    def __init__(self, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.rows = rows
        size = rows * width * dtype.itemsize
        first = -(-size // _ALIGNED) * _ALIGNED
        whole = first + rows * COLUMNS * 8
        pinned = device.type == "cuda"
        self._here = torch.zeros(whole, dtype=torch.uint8, pin_memory=pinned)
        self._there = torch.zeros(whole, dtype=torch.uint8, device=device)

        def parts(memory: Tensor) -> tuple[Tensor, Tensor]:
            hidden = memory[:size].view(dtype).view(rows, width)
            return hidden, memory[first:].view(torch.int64).view(rows, COLUMNS)

        self.hidden, self.ints = parts(self._there)
        self.own_hidden, ints = parts(self._here)
        self.own_ints: Ints = ints.numpy()
        self._sent = event() if pinned else None

    def wait(self) -> None:
        """Until what is here may be written to: a copy of it may still be under way."""
        if self._sent is not None:
            self._sent.synchronize()

    def send(self) -> None:
        """Copy what stands here to the device, in turn with its other work."""
        self._there.copy_(self._here, non_blocking=True)
        if self._sent is not None:
            record(self._sent, self._there.device)
