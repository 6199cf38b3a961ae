"""What is loaded for good is not walked by the garbage collector again."""

import gc

from gardener.runtime.memory import keep_for_good


def test_what_is_there_is_frozen_and_what_comes_later_is_collected() -> None:
    loaded = [[number] for number in range(1000)]
    try:
        keep_for_good()
        assert gc.get_freeze_count() >= len(loaded)
        walked = len(gc.get_objects())
        loop: list[object] = []
        loop.append(loop)
        assert len(gc.get_objects()) > walked
        del loop
        assert gc.collect() >= 1
    finally:
        gc.unfreeze()
