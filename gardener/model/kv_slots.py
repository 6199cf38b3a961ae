"""Where the rows of a request live in the KV cache, and what each of them may see.

Keys are rotated by absolute position before they are written, so a row may stand in any slot.
Rows that can no longer die (the prompt, settled tokens, the root) are *certain*: a chain, of which
the row at position p stands in slot p, so that sums over what is settled have one order and need
no mask. A row takes the slot of its position from the start if that is free, which it always is for
a prompt and in plain decoding; else it is moved there once, when it becomes certain, and a row of
the tree that stands in its way finds another slot. The other rows are kept by id until an advance
settles or kills them.

The table belongs to the event loop. The worker thread only gets finished arrays, and its passes
run in the order in which their rows were placed. So a slot that is freed while an older pass still
writes to it is only reused by a younger one, and moves travel with the next placement, to be made
before its pass: no locks.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gardener.errors import RemoteError
from gardener.model.placement import Ints, Mask, Moves, Placement
from gardener.model.slots import Slots
from gardener.protocol.life import descendants


class _TreeRow(NamedTuple):
    """A row that may still die."""

    parent: int
    slot: int
    position: int


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
        self._slots = Slots(self._limit, shared)

    @property
    def certain(self) -> int:
        """How many rows hold a slot for good; they stand in slots 0..certain-1, in order."""
        return self._slots.certain

    @property
    def high(self) -> int:
        """Highest slot in use, plus one."""
        return self._slots.high

    @property
    def free(self) -> int:
        """Slots below `high` that hold nothing."""
        return self._slots.free

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
        """Give slots to rows that live, and say what each of them sees.

        Rows may descend from rows of earlier placements of the same forward pass. Raises
        RemoteError if the rows do not fit together, or do not fit.
        """
        self._check(ids, parents, positions)
        base = self._slots.certain
        at = np.array(positions, np.int64)
        slots = self._slots.take(at)
        high = max(self._slots.high, base)
        if len(ids) > 1 and ids[-1] < self._prompt:  # a run of the prompt: no loop over rows
            self._slots.certain += len(ids)
            mask = np.tri(len(ids), high - base, dtype=np.bool_)
        else:
            self._add(ids, parents, positions, slots.tolist())
            mask = self._mask(zip(ids, slots.tolist(), strict=True), base, high)
        return self._placement(slots, at, mask, base, high)

    def again(self, ids: Sequence[int]) -> Placement:
        """Where rows of the tree that have slots stand, to compute them once more.

        Raises KeyError for a row that has none or is certain.
        """
        rows = [self._rows[row] for row in ids]
        slots = np.array([row.slot for row in rows], np.int64)
        base, high = self._slots.certain, self._slots.high
        mask = self._mask(zip(ids, slots.tolist(), strict=True), base, high)
        return self._placement(
            slots, np.array([row.position for row in rows], np.int64), mask, base, high
        )

    def _placement(
        self, slots: Ints, positions: Ints, mask: Mask, base: int, high: int
    ) -> Placement:
        return Placement(
            slots=slots,
            positions=positions,
            base=base,
            high=high,
            mask=None if mask.all() else mask,
            slot_positions=self._slots.positions(base, high),
            moves=self._slots.moves(),
        )

    def moves(self) -> Moves | None:
        """What is to be moved, for those who do not wait for the next placement."""
        return self._slots.moves()

    def slot(self, row: int) -> int:
        """Where a row of the tree stands. Raises KeyError if it has no slot, or is certain."""
        return self._rows[row].slot

    def __contains__(self, row: int) -> bool:
        return row in self._rows

    def first(self, count: int) -> Ints:
        """Where the first `count` certain rows stand, in order of position, until the next pass:
        slots [count].

        Raises RemoteError if fewer are certain.
        """
        if count > self.certain:
            raise RemoteError(f"{count} rows of a text of which {self.certain} are certain")
        return self._slots.first(count)

    def keep_certain(self) -> Ints:
        """Forget the rows that may still die, and what was to be moved: the certain ones are to
        stand in slots 0..certain-1. Returns the slots [certain] where they stand until now."""
        slots = self.first(self.certain)
        self._rows.clear()
        self._slots = Slots(self.certain, self.certain)
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
        if root in self._rows:
            path.append(root)
        self._check_path(path)
        settling = [self._rows.pop(row).slot for row in path]
        self._certain.update(path)
        below = descendants(root, ((row, record.parent) for row, record in self._rows.items()))
        dead = [row for row in self._rows if row not in below]
        self._slots.release([self._rows.pop(row).slot for row in dead])
        relocated = self._slots.settle(settling, [record.slot for record in self._rows.values()])
        if relocated:
            for row, record in self._rows.items():
                slot = relocated.get(record.slot, record.slot)
                self._rows[row] = record._replace(slot=slot)
        self.root = root

    def _is_certain(self, row: int) -> bool:
        return row < self._prompt or row == self.root

    def _root_is_here(self) -> bool:
        return self.root in self._certain or (
            self.root < self._prompt and self.certain >= self._prompt
        )

    def _check(self, ids: Sequence[int], parents: Sequence[int], positions: Sequence[int]) -> None:
        """Every row must follow a parent that is here or earlier in the segment, one place on.

        This also bounds the positions, and with them all that is allocated by position.
        """
        chain, root_here = self.certain, self._root_is_here()
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

    def _add(
        self,
        ids: Sequence[int],
        parents: Sequence[int],
        positions: Sequence[int],
        slots: Sequence[int],
    ) -> None:
        """Remember rows that have slots now."""
        for row, parent, position, slot in zip(ids, parents, positions, slots, strict=True):
            if not self._is_certain(row):
                self._rows[row] = _TreeRow(parent, slot, position)
                continue
            self._slots.certain += 1  # nothing else is here that could stand in its way
            if row >= self._prompt:
                self._certain.add(row)

    def _mask(self, rows: Iterable[tuple[int, int]], base: int, high: int) -> Mask:
        """Which slots from `base` on these rows see, given as ids and slots: those of their
        ancestors, and their own. What became certain since `base` is seen by all, for it came
        before them. [rows, high - base]"""
        own = list(rows)
        mask = np.zeros((len(own), high - base), np.bool_)
        if self.certain > base:
            mask[:, : self.certain - base] = True
        lines: dict[int, Mask] = {}
        for (row, slot), line in zip(own, mask, strict=True):
            record = self._rows.get(row)
            if record is None:  # certain: none that came after it
                line[slot + 1 - base :] = False
                continue
            lines[row] = line
            if record.parent in lines:
                line[:] = lines[record.parent]
            else:
                line[[above.slot - base for above in self._ancestors(record)]] = True
            line[slot - base] = True
        return mask

    def _ancestors(self, row: _TreeRow) -> Iterator[_TreeRow]:
        """Those that may still die, the nearest first."""
        while (above := self._rows.get(row.parent)) is not None:
            yield above
            row = above
