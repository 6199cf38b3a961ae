"""Where the work of a drafter queues on a device: not behind the passes of a stage there."""

from contextlib import AbstractContextManager, nullcontext

import torch

from gardener.model.device.events import stream


class Lane:
    """Work that is given to the device in the context of `lane()`, by one thread at a time, is done
    in turn, and waits for nothing that others give it."""

    def __init__(self, device: torch.device) -> None:
        """What was given to the device before is done first: weights may still be on their way."""
        self._stream = stream(device) if device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def __call__(self) -> AbstractContextManager[object]:
        """A context for the thread that enters it."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
