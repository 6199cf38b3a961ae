"""KV caches at addresses that stay, which requests take in turns: so what was recorded for one
request is there for the next one."""

from collections.abc import Callable

from gardener.model.device.sizes import CHUNK
from gardener.model.kv_cache import KVCache

STEP = 4 * CHUNK
"""Seats have a multiple of so many slots."""

FREE = 2
"""Most seats that are kept while nobody has them."""


class Seats:
    """make: a cache of this many slots at an address that stays. gone: a cache will not be used
    again: whatever knows its address is to forget it."""

    def __init__(self, make: Callable[[int], KVCache], gone: Callable[[KVCache], None]) -> None:
        self._make, self._gone = make, gone
        self._taken: list[KVCache] = []
        self._free: list[KVCache] = []

    def take(self, slots: int) -> KVCache:
        """An empty seat with at least so many slots and one more, see `dump`."""
        fitting = [seat for seat in self._free if dump(seat) >= slots]
        if fitting:
            seat = min(fitting, key=dump)
            self._free.remove(seat)
            seat.empty()
        else:
            seat = self._make(-(-(slots + 1) // STEP) * STEP)
        self._taken.append(seat)
        return seat

    def give(self, cache: KVCache) -> None:
        """Whoever had this one is done with it; a cache that is no seat is nobody's business."""
        if cache not in self._taken:
            return
        self._taken.remove(cache)
        self._free.append(cache)
        if len(self._free) > FREE:
            self._gone(self._free.pop(0))


def dump(seat: KVCache) -> int:
    """The last slot, in which nothing stands but what filler rows leave there."""
    return seat.slots - 1
