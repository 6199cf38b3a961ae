"""Memory of what is loaded once and used for long."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept() -> Iterator[None]:
    """Leave all that is loaded by now out of garbage collections, until the block ends.

    A full collection walks every object of the process, of which imported packages alone bring
    hundreds of thousands, and the event loop stands still meanwhile. Blocks may be nested or
    overlap: what was kept is collected again when the first of them ends.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def give_back() -> None:
    """Give freed memory back to the system, where the C library keeps it for later. Between layers
    that are brought into another form, that is more than the largest layer takes."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
