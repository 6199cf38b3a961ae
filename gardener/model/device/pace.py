"""Keeps this machine from running far ahead of a device: what has been asked for cannot be stopped
any more."""

from collections import deque

import torch

from gardener.model.device.events import event, record

AHEAD = 2
"""So many steps may have been asked for that the device has not begun or is busy with: with one, it
would wait for this machine between them."""


class Pace:
    """For one pass, step by step."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._asked: deque[torch.cuda.Event] = deque()

    def step(self) -> None:
        """Another step is about to be asked for: wait until fewer than `AHEAD` are left to do."""
        if self._device.type != "cuda":
            return
        if len(self._asked) == AHEAD:
            self._asked.popleft().synchronize()
        self._asked.append(event())
        record(self._asked[-1], self._device)
