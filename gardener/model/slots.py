"""The slots of one request: which are in use, and what is to be moved."""

import numpy as np

from gardener.errors import LocalError, RemoteError
from gardener.model.placement import Ints, Moves

_FIRST_SIZE = 256

_LEFT_FREE = 16
"""So many slots after the certain rows are left to the rows of these positions, as long as there
are others: what is accepted then mostly stands where it belongs."""


class Slots:
    """Slots 0..limit-1. The first `certain` hold the certain rows, each at its position."""

    def __init__(self, limit: int, certain: int) -> None:
        self.certain, self._limit = certain, limit
        size = min(limit, max(_FIRST_SIZE, certain))
        self._used = np.arange(size) < certain
        self._positions = np.arange(size, dtype=np.int64)
        self._moves: dict[int, int] = {}  # target: where that stands until the moves are made

    @property
    def high(self) -> int:
        """Highest slot in use, plus one."""
        used = np.flatnonzero(self._used)
        return int(used[-1]) + 1 if len(used) else 0

    @property
    def free(self) -> int:
        """Slots below `high` that hold nothing."""
        return self.high - int(np.count_nonzero(self._used))

    def take(self, positions: Ints) -> Ints:
        """A slot for each of these rows, [rows]: that of its position if it is free, or else the
        first one that is free and is not soon wanted by others. Raises RemoteError if there are
        not as many."""
        self._grow(int(positions.max(initial=-1)) + 1)
        slots = positions.copy()
        own = np.zeros(len(slots), np.bool_)
        own[np.unique(positions, return_index=True)[1]] = True  # the first one of each position
        own &= positions < len(self._used)
        own[own] = ~self._used[positions[own]]
        self._used[slots[own]] = True
        if not own.all():
            try:
                slots[~own] = self._elsewhere(len(slots) - int(np.count_nonzero(own)))
            except RemoteError:
                self._used[slots[own]] = False
                raise
            self._used[slots] = True
        self._positions[slots] = positions
        return slots

    def _elsewhere(self, count: int) -> Ints:
        """So many free slots."""
        wanted = self.certain + _LEFT_FREE
        while True:
            free = np.flatnonzero(~self._used)
            far = free[np.searchsorted(free, wanted) :]
            size = len(self._used)
            if len(far) >= count or size >= self._limit:
                break
            self._grow(2 * size)
        if len(free) < count:
            raise RemoteError(f"the request needs more than its {self._limit} slots")
        if len(far) < count:  # the last ones are wanted last
            far = np.concatenate((far, free[: len(free) - len(far)][::-1]))
        return far[:count]

    def _grow(self, size: int) -> None:
        more = min(size, self._limit) - len(self._used)
        if more > 0:
            more = min(max(more, len(self._used)), self._limit - len(self._used))
            self._used = np.pad(self._used, (0, more))
            self._positions = np.pad(self._positions, (0, more))

    def release(self, slots: list[int]) -> None:
        """What stands there is dead."""
        self._used[slots] = False

    def settle(self, slots: list[int], others: list[int]) -> dict[int, int]:
        """The rows in `slots`, in order, are the next certain ones: see to it that they stand at
        their positions. `others`: slots of all rows that may still die. Returns which of those find
        another slot."""
        first = self.certain
        self.certain = end = first + len(slots)
        if slots == list(range(first, end)):
            return {}
        if end > self._limit:
            raise LocalError(f"{end} rows are certain in {self._limit} slots")
        self._grow(end)
        self._used[slots] = False
        self._used[first:end] = True
        in_the_way = [slot for slot in others if first <= slot < end]
        found = self.take(self._positions[in_the_way]).tolist()
        relocated = dict(zip(in_the_way, found, strict=True))
        self._positions[first:end] = np.arange(first, end)
        self._move([*slots, *in_the_way], [*range(first, end), *found])
        return relocated

    def _move(self, sources: list[int], targets: list[int]) -> None:
        origins = [self._moves.get(source, source) for source in sources]
        self._moves.update(zip(targets, origins, strict=True))

    def moves(self) -> Moves | None:
        """What is to be moved by now: whoever asks sees to it."""
        moves = {t: s for t, s in self._moves.items() if t != s and self._used[t]}
        self._moves.clear()
        if not moves:
            return None
        sources, targets = list(moves.values()), list(moves)
        return Moves(np.array(sources, np.int64), np.array(targets, np.int64))

    def first(self, count: int) -> Ints:
        """Where the first certain rows stand as long as the moves are not made: slots [count]."""
        slots = np.arange(count, dtype=np.int64)
        for target, source in self._moves.items():
            if target < count:
                slots[target] = source
        return slots

    def positions(self, base: int, high: int) -> Ints:
        """Of the rows in slots base..high-1, a copy; means nothing for a free slot."""
        return self._positions[base:high].copy()
