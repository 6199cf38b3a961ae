"""What time it is: the machine's monotonic clock, or a virtual one while a simulation runs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_time: Callable[[], float] = time.monotonic


def now() -> float:
    """In seconds, from an arbitrary start. May be asked on any thread."""
    return _time()


@contextmanager
def using(time: Callable[[], float]) -> Iterator[None]:
    """Let `time` be the clock of this process meanwhile."""
    global _time
    before, _time = _time, time
    try:
        yield
    finally:
        _time = before
