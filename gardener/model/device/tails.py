"""Which slots the rows of a pass look back on, as the table of a `Frame`.

What a row sees is cut in two by its position alone (`sizes.cut_of`). Before the cut stands the
settled text, in order in slots 0, 1 and so on, but for a few *deep* rows. Behind it is the tail of
the row: its slots are listed one by one, in the order of their positions.
"""

import numpy as np

from gardener.errors import LocalError
from gardener.model.device.frame import COLUMNS, CUT, FIRST_OF_TAIL, POSITION, SLOT
from gardener.model.device.sizes import SLACK, STEP, TAIL
from gardener.model.placement import Ints, Mask, Placement, out_of_order


def cuts(positions: Ints) -> Ints:
    """`sizes.cut_of` for many positions."""
    return np.maximum(positions - SLACK, 0) // STEP * STEP


def table(placement: Placement, rows: int, dump: int) -> Ints:
    """What a frame of `rows` rows says of these, and of rows that fill it up: [rows, COLUMNS].

    dump    slot of the rows that fill it up, which holds nothing; they see it alone

    Behind its tail a row has its own slot: should it be no number, it harms no other row. Raises
    LocalError if there are more rows than `rows`.
    """
    own = len(placement.slots)
    if own > rows:
        raise LocalError(f"{own} rows in a frame of {rows}")
    made = np.zeros((rows, COLUMNS), np.int64)
    made[own:, SLOT] = dump
    made[own:, FIRST_OF_TAIL:] = dump
    made[:own, POSITION] = placement.positions
    made[:own, SLOT] = placement.slots
    made[:own, CUT] = cuts(placement.positions)
    made[:own, FIRST_OF_TAIL:] = _tails(placement)
    return made


def _tails(placement: Placement) -> Ints:
    """[rows, TAIL]"""
    cut = cuts(placement.positions)
    places = cut[:, None] + np.arange(TAIL)
    inside = np.minimum(placement.positions + 1, placement.base)
    tails: Ints = np.where(places < inside[:, None], places, placement.slots[:, None])
    row, column = np.nonzero(placement.tail)
    place = placement.slot_positions[column] - cut[row]
    listed = place >= 0
    tails[row[listed], place[listed]] = column[listed] + placement.base
    return tails


def deep(placement: Placement) -> Mask:
    """Which rows have settled text that does not stand in order, [rows]: a tree is deeper than what
    a tail holds. They are computed alone, see `order`."""
    return out_of_order(placement, cuts(placement.positions))


def order(placement: Placement) -> Ints:
    """The slots of the settled text of a lone row, in order of position: [cut]."""
    slots = np.flatnonzero(placement.sees[0])
    places = np.concatenate((np.arange(placement.base), placement.slot_positions))[slots]
    made: Ints = slots[np.argsort(places)][: int(cuts(placement.positions)[0])]
    return made
