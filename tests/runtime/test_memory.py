"""What is loaded is not walked by the garbage collector, as long as it is in use."""

import gc
import weakref

from gardener.runtime.memory import kept


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
