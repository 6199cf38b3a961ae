"""Where the rows of a segment go in the KV cache, and what each of them may see."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gardener.errors import LocalError

Ints: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]


class Moves(NamedTuple):
    """Entries of the cache that find another place, all at once: what stands in slot `sources[i]`
    is to stand in slot `targets[i]`. [moves] each."""

    sources: Ints
    targets: Ints


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the rows of a segment go, and what they see. Read only once it is built.

    slots           [rows] slot that each row is written to
    positions       [rows] place of each row in the text, counted from 0
    base            slots 0..base-1 hold the first rows of the text in order; all of these rows see
                    them
    high            slots 0..high-1 are all that any row may see
    mask            [rows, high - base] which of the slots from `base` on each row sees, its own
                    included; None: all of them
    slot_positions  [high - base] position of the row in each of them; means nothing for a free slot
    moves           what is to be moved before these rows are computed, whatever becomes of them
    """

    slots: Ints
    positions: Ints
    base: int
    high: int
    mask: Mask | None
    slot_positions: Ints
    moves: Moves | None = None

    @property
    def tail(self) -> Mask:
        """The mask, also where all is seen."""
        if self.mask is not None:
            return self.mask
        return np.ones((len(self.slots), self.high - self.base), np.bool_)

    @property
    def sees(self) -> Mask:
        """Which slots each row sees, [rows, high]."""
        return np.pad(self.tail, ((0, 0), (self.base, 0)), constant_values=True)

    def within(self, window: int | None) -> Mask:
        """Which slots each row sees where attention slides: the last `window` positions. [rows,
        high]"""
        if window is None:
            return self.sees
        places = np.concatenate((np.arange(self.base), self.slot_positions))
        return self.sees & (self.positions[:, None] - places[None, :] < window)

    def take(self, rows: Sequence[int]) -> "Placement":
        """Some of the rows, of a placement whose moves are made."""
        return replace(
            self,
            slots=self.slots[rows],
            positions=self.positions[rows],
            mask=None if self.mask is None else self.mask[rows],
            moves=None,
        )


def out_of_order(placement: Placement, cuts: Ints) -> Mask:
    """Which rows have more ancestors before their cuts [rows] than stand in order, from slot 0 on.
    [rows]"""
    if int(cuts.max()) <= placement.base:
        return np.zeros(len(cuts), np.bool_)
    ordered = placement.slot_positions == np.arange(placement.base, placement.high)
    fits = placement.tail & ordered
    so_far = np.where(fits.all(1), placement.high - placement.base, fits.argmin(1))
    deep: Mask = so_far < cuts - placement.base
    return deep


def merge(placements: Sequence[Placement]) -> Placement:
    """Several placements of one request, made without an advance between them, as one."""
    if len(placements) == 1:
        return placements[0]
    slots = np.concatenate([p.slots for p in placements])
    if len(np.unique(slots)) != len(slots):
        raise LocalError("two rows of one forward pass share a slot")
    moves = [p.moves for p in placements if p.moves is not None]
    if len(moves) > 1:
        raise LocalError("the root moved on between two segments of one forward pass")
    base, high = min(p.base for p in placements), max(p.high for p in placements)
    mask = np.zeros((len(slots), high - base), np.bool_)
    positions = np.zeros(high - base, np.int64)
    first = 0
    for p in placements:
        lines = mask[first : first + len(p.slots)]
        lines[:, : p.base - base] = True
        lines[:, p.base - base : p.high - base] = p.tail
        positions[p.base - base : p.high - base] = p.slot_positions
        positions[: p.base - base] = np.arange(base, p.base)
        first += len(p.slots)
    return Placement(
        slots=slots,
        positions=np.concatenate([p.positions for p in placements]),
        base=base,
        high=high,
        mask=None if mask.all() else mask,
        slot_positions=positions,
        moves=moves[0] if moves else None,
    )
