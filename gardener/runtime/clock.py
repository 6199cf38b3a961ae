"""What time it is: the machine's monotonic clock, or a virtual one where a simulation runs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Clock(threading.local):
    """Each thread has its own, so that a simulation may run beside what is real."""

    time: Callable[[], float] = staticmethod(time.monotonic)


_clock = _Clock()


def now() -> float:
    """In seconds, from an arbitrary start. May be asked on any thread."""
    return _clock.time()


@contextmanager
def using(time: Callable[[], float]) -> Iterator[None]:
    """Let `time` be the clock of this thread meanwhile."""
    before, _clock.time = _clock.time, time
    try:
        yield
    finally:
        _clock.time = before
