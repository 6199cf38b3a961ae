"""How long the parts of a pass take, where a device computes on its own."""

from collections.abc import Callable

import torch

from gardener.model.device.events import event, record


class Laps:
    """Begins when it is made, and ends with `split`.

    Where a device has events, they tell how what is between two marks compares, and the clock how
    long all of it took, as whoever waits for it sees it: nothing waits in the middle.
    """

    def __init__(self, device: torch.device, now: Callable[[], float]) -> None:
        """`now` is a clock, in seconds."""
        self._device, self._now = device, now
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = [now()]
        self._event()

    def mark(self) -> None:
        """One part ends, the next one begins."""
        if self._device.type == "cuda":
            self._event()
        else:
            self._wait()
            self._times.append(self._now())

    def split(self) -> list[float]:
        """The seconds of each part. Everything has been waited for."""
        whole = self._now() - self._times[0]
        if self._device.type != "cuda":
            ends = [*self._times[1:], self._times[0] + whole]
            return [end - begin for begin, end in zip(self._times, ends, strict=True)]
        self._event()
        self._events[-1].synchronize()
        pairs = zip(self._events[:-1], self._events[1:], strict=True)
        parts = [begin.elapsed_time(end) for begin, end in pairs]
        return [whole * part / sum(parts) for part in parts]

    def _event(self) -> None:
        if self._device.type == "cuda":
            marked = event(timed=True)
            record(marked, self._device)
            self._events.append(marked)

    def _wait(self) -> None:
        if self._device.type == "mps":
            torch.mps.synchronize()
