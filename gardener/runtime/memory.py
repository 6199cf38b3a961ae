"""What is loaded once and used for long is left out of garbage collections meanwhile."""

import gc
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
