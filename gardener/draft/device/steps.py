"""The work of drafting on a device, in few sizes: rows are computed, something is guessed, or both.

All of it reads fixed addresses only and never waits, and may be done twice: so it can be recorded.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gardener.draft.computed_rows import LARGEST
from gardener.draft.device.seats import Seat
from gardener.draft.network import DraftNetwork, DraftRows
from gardener.draft.ranking import likeliest, together
from gardener.model.attention import Span, quick_attention
from gardener.model.device.parcel import Parcel, Part

ROWS = (4, 16, 64, 256)
"""Sizes of a step: fewer rows are filled up. More are filled up to a multiple of the last one."""

LOOK = 256
"""Slots that a step looks at, times a power of two."""

TOKEN, POSITION, SLOT, SOURCE = range(4)
"""Rows of a parcel's `ints`. Source: the slot whose output a row reads; where features are the
target's, the first row's alone counts, which is of the row before."""


class Size(NamedTuple):
    """What a step is.

    rows   so many are computed, with those that fill up
    look   over so many slots
    true   on features of the target
    asked  so many are asked about, with those that fill up
    best   the likeliest guesses are wanted, not outputs
    """

    rows: int
    look: int
    true: bool
    asked: int
    best: bool


def filled(rows: int) -> int:
    """The size for so many rows, at least one."""
    return next((size for size in ROWS if size >= rows), -(-rows // ROWS[-1]) * ROWS[-1])


def looked(high: int) -> int:
    """How many slots are looked at where the first `high` may be seen."""
    return LOOK << (-(-high // LOOK) - 1).bit_length()


class Steps:
    """The steps of one network. `width`: most guesses at one place."""

    def __init__(self, network: DraftNetwork, width: int) -> None:
        self.network, self._width = network, width
        self._kernel = quick_attention(network.device)
        self.windows = tuple({None, *network.shape.windows})  # a head looks back all the way

    def parcel(self, size: Size, features: int) -> Parcel:
        """What a step of this size reads. `features`: numbers of the target's for a row."""
        network, rows = self.network, size.rows
        parts = {"asked": Part(torch.int64, (size.asked,))}
        if rows:
            parts["ints"] = Part(torch.int64, (4, rows))
            parts["hidden"] = Part(torch.bool, (len(self.windows), rows, size.look))
            if not network.embeds_there:
                parts["embedded"] = Part(network.dtype, (rows, network.shape.width))
        if size.true:
            parts["features"] = Part(network.dtype, (rows, features))
        return Parcel(parts, network.device)

    def work(self, seat: Seat, size: Size, given: dict[str, Tensor]) -> Tensor | None:
        """One step on what was sent. Returns guesses as `ranking.together` puts them, or outputs
        [asked, outputs], if anything is asked.

        Logits are not handed out: all that is recorded keeps what it gives, and these are many.
        """
        if size.rows:
            self._compute(seat, size, given)
        if not size.asked:
            return None
        outputs = seat.outputs.index_select(0, given["asked"])
        if not size.best:
            return outputs
        logits = self.network.logits(outputs)
        return together(*likeliest(logits, self._width, self.network.tokens))

    def _compute(self, seat: Seat, size: Size, given: dict[str, Tensor]) -> None:
        """Rows that are new, or computed anew."""
        network, ints = self.network, given["ints"]
        slots = ints[SLOT]
        embedded = network.embed(ints[TOKEN]) if network.embeds_there else given["embedded"]
        features, before = torch.zeros(0), None
        if size.true:  # what is no number must not get into keys, which later rows mask only
            features = given["features"].nan_to_num(0.0, 0.0, 0.0)
            before = seat.outputs.index_select(0, ints[SOURCE][:1])
        elif network.taps:
            features = seat.outputs.index_select(0, ints[SOURCE])
        biases = dict(zip(self.windows, bias(given["hidden"], network.dtype), strict=True))
        span = Span(0, size.rows, seat.cache, self._kernel, slots, size.look, biases)
        rotations = seat.rotations(ints[POSITION])
        rows = DraftRows(embedded, features, size.true, before, rotations, [span])
        outputs = network.run(rows).nan_to_num(0.0).clamp_(-LARGEST, LARGEST)
        seat.outputs.index_copy_(0, slots, outputs)


def bias(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores, where bool `hidden` says which are not seen."""
    nothing = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return nothing.masked_fill_(hidden, -torch.inf)


def move(seat: Seat, given: dict[str, Tensor]) -> None:
    """Move what stands in some slots. Not to be done twice but where nothing is moved."""
    sources, targets = given["sources"], given["targets"]
    seat.cache.shift(sources, targets)
    seat.outputs.index_copy_(0, targets, seat.outputs.index_select(0, sources))
