"""What time it is: the machine's monotonic clock, or a virtual one while a simulation runs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_time: Callable[[], float] = time.monotonic


class _Here(threading.local):
    """The clock of this thread, if it has one of its own."""

    time: Callable[[], float] | None = None


_here = _Here()


def now() -> float:
    """In seconds, from an arbitrary start. May be asked on any thread."""
    return (_here.time or _time)()


def wall_clock() -> int:
    """Microseconds since 1970, as this machine's wall clock says it. It may jump."""
    return int(time.time() * 1e6)


@contextmanager
def using(time: Callable[[], float]) -> Iterator[None]:
    """Let `time` be the clock of this process meanwhile."""
    global _time
    before, _time = _time, time
    try:
        yield
    finally:
        _time = before


@contextmanager
def using_here(time: Callable[[], float]) -> Iterator[None]:
    """Let `time` be the clock of this thread meanwhile: what is real may go on in others."""
    before, _here.time = _here.time, time
    try:
        yield
    finally:
        _here.time = before
