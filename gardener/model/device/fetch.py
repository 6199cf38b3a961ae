"""From a device to this machine's memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gardener.model.device.events import event, record

_FIRST_SIZE = 2**16  # bytes


class Fetch:
    """Brings tensors here, one at a time: through memory that a device writes to by itself."""

    def __init__(self, device: torch.device) -> None:
        self._pinned = device.type == "cuda"
        self._here = torch.empty(0, dtype=torch.uint8)
        self._came = event() if self._pinned else None

    def __call__(self, there: Tensor) -> Tensor:
        """The same numbers here, until the next call. Waits for what they are computed from, and
        for nothing that was asked for later."""
        if self._came is None:
            return there.cpu()
        if there.nbytes > self._here.nbytes:
            size = max(there.nbytes, 2 * self._here.nbytes, _FIRST_SIZE)
            self._here = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        here = self._here[: there.nbytes].view(there.dtype).view(there.shape)
        here.copy_(there, non_blocking=True)
        record(self._came, there.device)
        self._came.synchronize()
        return here

    def all(self, there: Sequence[Tensor]) -> Sequence[Tensor]:
        """The same for several of one shape and dtype, with one copy."""
        if self._came is None or not there:
            return [each.cpu() for each in there]
        return self(torch.stack(tuple(there))).unbind()
