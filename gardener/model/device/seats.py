"""KV caches at addresses that stay, which requests take in turns: so what was recorded for one
request is there for the next one."""

from collections.abc import Callable

from gardener.model.device.sizes import CHUNK
from gardener.model.kv_cache import KVCache

LEAST = CHUNK
"""Slots of the smallest seat."""

WASTE = 2
"""A seat may have so many times the slots that whoever takes it asks for, and `LEAST` more."""


class Seats:
    """All seats of a stage, taken or free. Whenever one is made, there is no free one beside it: so
    seats never hold more than `WASTE` says of what was asked for at some time.

    make: a cache of this many slots at an address that stays. gone: a cache will not be used again:
    whatever knows its address is to forget it.
    """

    def __init__(self, make: Callable[[int], KVCache], gone: Callable[[KVCache], None]) -> None:
        self._make, self._gone = make, gone
        self._taken: list[KVCache] = []
        self._free: list[KVCache] = []

    def take(self, slots: int) -> KVCache:
        """An empty seat with at least so many slots, and a `dump` behind them."""
        most = WASTE * slots + LEAST
        fitting = [seat for seat in self._free if slots <= dump(seat) <= most]
        if fitting:
            seat = min(fitting, key=dump)
            self._free.remove(seat)
            seat.empty()
        else:
            for other in self._free:
                self._gone(other)
            self._free.clear()
            # The dump lies behind all chunks: whatever stands there, no row of a text reads it.
            seat = self._make(size_for(slots) + 1)
        self._taken.append(seat)
        return seat

    def give(self, cache: KVCache) -> None:
        """Whoever had this one is done with it; a cache that is no seat is nobody's business."""
        if cache in self._taken:
            self._taken.remove(cache)
            self._free.append(cache)


def size_for(slots: int) -> int:
    """Slots of a new seat for so many: one of few sizes, so that a text that grows a little from
    request to request mostly finds the same seat."""
    if slots <= LEAST:
        return LEAST
    size = 2 * LEAST
    while size < slots:  # 2, 3, 4, 6, 8, 12, ... times the least
        size += size // 2 if size & (size - 1) == 0 else size // 3
    return size


def dump(seat: KVCache) -> int:
    """The last slot, in which nothing stands but what filler rows leave there."""
    return seat.slots - 1
