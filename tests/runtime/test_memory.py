"""What is loaded is not walked by the garbage collector; what is freed goes back."""

import gc
import sys
import weakref

import psutil

from gardener.runtime.memory import give_back, kept


class Loaded:
    """It refers to itself, so only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_is_left_alone_until_the_block_ends_and_then_freed() -> None:
    before, loaded = Loaded(), [[number] for number in range(1000)]
    old = weakref.ref(before)
    with kept():
        assert gc.get_freeze_count() >= len(loaded)
        after = Loaded()
        new = weakref.ref(after)
        del before, after
        gc.collect()
        assert new() is None, "what comes later is collected"
        assert old() is not None
    gc.collect()
    assert old() is None
    assert not gc.get_freeze_count()


def test_freed_memory_goes_back_to_the_system() -> None:
    process = psutil.Process()
    parts = [bytearray(100_000) for _ in range(1000)]
    last = parts.pop()  # so that the end of the heap is in use
    held = process.memory_info().rss
    parts.clear()
    give_back()
    assert last
    if sys.platform == "linux":
        assert process.memory_info().rss < held - 50_000_000
