"""Where the rows of a request live in the KV cache, and what each of them may see.

Keys are rotated by absolute position before they are written, so a row may stand in any slot. A
row's mask is its parent's mask plus its own slot. Pruning frees slots; nothing is ever moved.

The table belongs to the event loop. The worker thread only gets finished arrays, and its passes
run in the order in which their rows were placed. So a slot that is freed while an older pass still
writes to it is only reused by a younger one: no locks.

Rows that can no longer die (the prompt, settled tokens, the root) are *certain*: a chain, kept as
one vector of slots. The others are kept by id until an advance settles or kills them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gardener.errors import LocalError, RemoteError
from gardener.protocol.life import descendants

Ints: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the rows of a segment go, and what they see. Read only once it is built.

    slots           [rows] slot that each row is written to
    mask            [rows, high] which slots each row sees, its own included; None: all of them
    high            slots 0..high-1 are all that any row may see
    positions       [rows] place of each row in the text, counted from 0
    slot_positions  [high] position of the row in each slot; means nothing for a free slot
    """

    slots: Ints
    mask: Mask | None
    high: int
    positions: Ints
    slot_positions: Ints


class _TreeRow(NamedTuple):
    """A row that may still die. `sees` is its line of the mask."""

    parent: int
    slot: int
    position: int
    sees: Mask


class SlotTable:
    """The slots of one request.

    Prompt ids 0..prompt-1 are a chain that is certain from the start; the root is its end.
    `context` bounds the tokens of prompt and answer, `spare` the rows of the tree beyond it. The
    first `shared` rows of the prompt are here from the start, in slots 0..shared-1: they are copies
    of another request's.
    """

    def __init__(self, prompt: int, context: int, spare: int = 1024, shared: int = 0) -> None:
        self.root = prompt - 1
        self._prompt = prompt
        self._limit = context + spare
        self._certain: set[int] = set()  # ids of certain rows, but for the prompt's
        self._rows: dict[int, _TreeRow] = {}
        self._begin(shared, min(self._limit, max(256, shared)))

    def _begin(self, certain: int, size: int) -> None:
        """So many certain rows stand in order of position in the first slots, and nothing else in
        the others; `size`: of all."""
        self._chain = certain  # certain rows that have a slot: the position of the next one
        self._used = np.arange(size) < certain
        self._base = self._used.copy()  # slots of the certain rows
        self._positions = np.arange(size, dtype=np.int64)

    @property
    def certain(self) -> int:
        """How many rows hold a slot for good."""
        return self._chain

    @property
    def unsettled(self) -> int:
        """How many rows hold a slot and may still die."""
        return len(self._rows)

    @property
    def high(self) -> int:
        """Highest slot in use, plus one."""
        used = np.flatnonzero(self._used)
        return int(used[-1]) + 1 if len(used) else 0

    @property
    def free(self) -> int:
        """Slots below `high` that hold nothing."""
        return self.high - int(np.count_nonzero(self._used))

    def alive(self, ids: Sequence[int], parents: Sequence[int]) -> list[int]:
        """Indices of the arriving rows that would live: prompt, root, or below the root.

        Rows that come in several segments are judged one segment after the other: place one
        before asking about the next.
        """
        known = ((row, record.parent) for row, record in self._rows.items())
        below = descendants(self.root, [*known, *zip(ids, parents, strict=True)])
        return [i for i, row in enumerate(ids) if self._is_certain(row) or row in below]

    def living(self, ids: Iterable[int]) -> list[bool]:
        """Which of these rows, all placed before, are still alive."""
        return [i < self._prompt or i in self._rows or i in self._certain for i in ids]

    def place(
        self, ids: Sequence[int], parents: Sequence[int], positions: Sequence[int]
    ) -> Placement:
        """Give slots to rows that live, first free first, and say what each of them sees.

        Rows may descend from rows of earlier placements of the same forward pass. Raises
        RemoteError if the rows do not fit together, or do not fit.
        """
        self._check(ids, parents, positions)
        slots = self._take(len(ids))
        self._positions[slots] = positions
        high = self.high
        if len(ids) > 1 and ids[-1] < self._prompt:
            sees = self._place_prompt(slots, high)
        else:
            sees = self._place_rows(ids, parents, positions, slots, high)
        everything = len(ids) == 1 and bool(sees.all())
        return Placement(
            slots=slots,
            mask=None if everything else sees,
            high=high,
            positions=self._positions[slots],
            slot_positions=self._positions[:high].copy(),
        )

    def again(self, ids: Sequence[int]) -> Placement:
        """Where rows of the tree that have slots stand, to compute them once more.

        Raises KeyError for a row that has none or is certain.
        """
        rows = [self._rows[row] for row in ids]
        high = self.high
        mask = np.zeros((len(rows), high), np.bool_)
        for line, row in zip(mask, rows, strict=True):
            width = min(high, len(row.sees))
            line[:width] = row.sees[:width]
        return Placement(
            slots=np.array([row.slot for row in rows], np.int64),
            mask=mask,
            high=high,
            positions=np.array([row.position for row in rows], np.int64),
            slot_positions=self._positions[:high].copy(),
        )

    def slot(self, row: int) -> int:
        """Where a row of the tree stands. Raises KeyError if it has no slot, or is certain."""
        return self._rows[row].slot

    def __contains__(self, row: int) -> bool:
        return row in self._rows

    def first(self, count: int) -> Ints:
        """Where the first `count` certain rows stand, in order of position: slots [count].

        Raises RemoteError if fewer are certain.
        """
        if count > self._chain:
            raise RemoteError(f"{count} rows of a text of which {self._chain} are certain")
        slots = np.flatnonzero(self._base)
        return slots[np.argsort(self._positions[slots])[:count]]

    def keep_certain(self) -> Ints:
        """Forget the rows that may still die, and let the certain ones stand in order of position
        in slots 0..certain-1. Returns the slots [certain] where they stood until now."""
        slots = self.first(self._chain)
        self._rows.clear()
        self._begin(self._chain, self._chain)
        return slots

    def advance(self, settled: Sequence[int], root: int) -> None:
        """The root is now `root`; `settled` are the accepted ids before it that were not settled.

        What is neither settled nor below the root is dead and gives its slot back. Repeating an
        advance, or running an overtaken one late, changes nothing. The row of `root` may still be
        on its way; the settled ones may not: RemoteError.
        """
        if root <= self.root:
            return
        path = [i for i in settled if i >= self._prompt and i not in self._certain]
        self._check_path(path)
        if root in self._rows:
            path.append(root)
        for row in path:
            record = self._rows.pop(row)
            self._add_certain(row, record.slot)
        below = descendants(root, ((row, record.parent) for row, record in self._rows.items()))
        dead = [row for row in self._rows if row not in below]
        self._used[[self._rows.pop(row).slot for row in dead]] = False
        self.root = root

    def _is_certain(self, row: int) -> bool:
        return row < self._prompt or row == self.root

    def _root_is_here(self) -> bool:
        return self.root in self._certain or (
            self.root < self._prompt and self._chain >= self._prompt
        )

    def _add_certain(self, row: int, slot: int) -> None:
        self._base[slot] = True
        self._chain += 1
        if row >= self._prompt:
            self._certain.add(row)

    def _check(self, ids: Sequence[int], parents: Sequence[int], positions: Sequence[int]) -> None:
        """Every row must follow a parent that is here or earlier in the segment, one place on.

        This also bounds the positions, and with them all that is allocated by position.
        """
        chain, root_here = self._chain, self._root_is_here()
        new: dict[int, int] = {}
        for row, parent, position in zip(ids, parents, positions, strict=True):
            if self._is_certain(row):
                due = chain
                if row in self._certain or (row < self._prompt and row != chain):
                    raise RemoteError(f"row {row} comes twice or out of turn")
                chain += 1
                root_here = root_here or row == self.root
            elif row in self._rows or row in new:
                raise RemoteError(f"row {row} comes twice")
            elif parent in new:
                due = new[parent] + 1
            elif parent in self._rows:
                due = self._rows[parent].position + 1
            elif parent == self.root and root_here:
                due = chain
            else:
                raise RemoteError(f"row {row} comes before its parent {parent}")
            if position != due:
                raise RemoteError(f"row {row} claims position {position} but stands at {due}")
            if not self._is_certain(row):
                new[row] = position

    def _check_path(self, path: Sequence[int]) -> None:
        if not self._root_is_here():
            raise RemoteError(f"the root moves on before row {self.root} has come")
        parent = self.root
        for row in path:
            if row not in self._rows or self._rows[row].parent != parent:
                raise RemoteError(f"row {row} is settled but does not follow row {parent} here")
            parent = row

    def _take(self, count: int) -> Ints:
        """The first `count` free slots."""
        free = np.flatnonzero(~self._used)[:count]
        while len(free) < count:
            size = len(self._used)
            if size >= self._limit:
                raise RemoteError(f"the request needs more than its {self._limit} slots")
            more = min(2 * size, self._limit) - size
            self._used = np.pad(self._used, (0, more))
            self._base = np.pad(self._base, (0, more))
            self._positions = np.pad(self._positions, (0, more))
            free = np.flatnonzero(~self._used)[:count]
        self._used[free] = True
        return free

    def _place_prompt(self, slots: Ints, high: int) -> Mask:
        """A run of the prompt, which may be long: no loop over rows."""
        sees = np.repeat(self._base[None, :high], len(slots), axis=0)
        sees[:, slots] = np.tri(len(slots), dtype=np.bool_)
        self._base[slots] = True
        self._chain += len(slots)
        return sees

    def _place_rows(
        self,
        ids: Sequence[int],
        parents: Sequence[int],
        positions: Sequence[int],
        slots: Ints,
        high: int,
    ) -> Mask:
        sees = np.zeros((len(ids), high), np.bool_)
        rows = zip(ids, parents, positions, slots.tolist(), sees, strict=True)
        for row, parent, position, slot, line in rows:
            above = self._rows.get(parent)
            inherited = self._base if above is None else above.sees
            # A parent's line may be longer than `high`: beyond it there is nothing left alive.
            width = min(high, len(inherited))
            line[:width] = inherited[:width]
            line[slot] = True
            if self._is_certain(row):
                self._add_certain(row, slot)
            else:
                self._rows[row] = _TreeRow(parent, slot, position, line)
        return sees


def merge(placements: Sequence[Placement]) -> Placement:
    """Several placements of one request, made without an advance between them, as one."""
    if len(placements) == 1:
        return placements[0]
    slots = np.concatenate([p.slots for p in placements])
    if len(np.unique(slots)) != len(slots):
        raise LocalError("two rows of one forward pass share a slot")
    widest = max(placements, key=lambda p: p.high)
    mask = np.zeros((len(slots), widest.high), np.bool_)
    first = 0
    for p in placements:
        mask[first : first + len(p.slots), : p.high] = True if p.mask is None else p.mask
        first += len(p.slots)
    return Placement(
        slots=slots,
        mask=mask,
        high=widest.high,
        positions=np.concatenate([p.positions for p in placements]),
        slot_positions=widest.slot_positions,
    )


def within(placement: Placement, window: int) -> Mask | None:
    """The mask where attention slides: each row sees only the last `window` positions."""
    distance = placement.positions[:, None] - placement.slot_positions[None, :]
    near: Mask = distance < window
    if near.all():
        return placement.mask
    return near if placement.mask is None else placement.mask & near
