"""The layers of a stage on a device: filled up, at fixed addresses, recorded and replayed.

The rows of each request are cut into pieces that fit into one size. Where work is recorded, a piece
is one replay. Without that (MPS, mixtures of experts, which wait in the middle, and whoever does
not want it), and where many requests come together, all pieces go through the layers together,
kernel by kernel, in the same sizes: a row comes to the same bits.

A pass that is replayed cannot be stopped between its layers: it is looked at before each piece.
Where a device is so slow that this machine starts kernels fast enough, nothing is replayed: then it
can be stopped before each layer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import floor, inf

import torch
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.attention import CachedRows
from gardener.model.block import Layer, run_blocks
from gardener.model.device.frame import COLUMNS, POSITION, Frame
from gardener.model.device.graphs import Graphs
from gardener.model.device.look import FilledRows
from gardener.model.device.pace import Pace
from gardener.model.device.seats import WASTE, Seats, dump
from gardener.model.device.sizes import chunks, cut_of, filled
from gardener.model.device.tails import deep, order, table
from gardener.model.kv_cache import KVCache
from gardener.model.placement import Placement
from gardener.model.rotary import Rotary
from gardener.stages.passes import Stopped, Text

_POSITIONS = 8192
"""Positions for which there are rotations from the beginning."""

_TAPS = 4
"""With more taps than a drafter asks for, a pass looks for what broke, and is not recorded."""

_SLOW = 0.1
"""Seconds from which on a pass is timed once."""

_PAYS = 0.97
"""To replay a pass is worth while if it takes at most this part of the time."""

_TURNS = 3
"""How often passes are timed to compare them."""


@dataclass(frozen=True, eq=False)
class _Piece:
    """Rows of one request that go into one size. See `Passes.run` for what they are among.

    begin   the first of them among all rows of the pass
    size    rows that are computed for them
    chunks  see `sizes.chunks`
    order   of a lone row whose settled text does not stand in order, the slots of that [cut]
    """

    placement: Placement
    cache: KVCache
    begin: int
    size: int
    chunks: int
    order: Tensor | None = None

    @property
    def rows(self) -> int:
        return len(self.placement.slots)

    @property
    def own(self) -> slice:
        """Where its rows are among all rows of the pass."""
        return slice(self.begin, self.begin + self.rows)


class DevicePasses:
    """See `passes.Passes`."""

    waste = WASTE

    def __init__(
        self,
        architecture: Architecture,
        blocks: Sequence[Layer],
        *,
        dtype: torch.dtype,
        device: torch.device,
        sizes: Sequence[int],
        graphs: Graphs,
        spread: float,
    ) -> None:
        """`sizes`: of rows, ascending, see `device.sizes`. `spread`: of attention there."""
        self.blocks, self.spread = blocks, spread
        self._architecture, self._dtype, self._device = architecture, dtype, device
        self._sizes, self._graphs = sizes, graphs
        self._rotary = Rotary(architecture, dtype, device)
        self._rotary.reserve(min(architecture.context, _POSITIONS))  # so that they stay there
        self._frames: dict[int, Frame] = {}
        self._seats = Seats(self._seat, self._gone)
        self.together: float = inf
        """Rows of so many requests are computed kernel by kernel, all at once; of fewer, one
        request after the other is replayed. 1: nothing is."""

    # --- caches ------------------------------------------------------------------------------

    def cache(self, slots: int) -> KVCache:
        """See `Passes`."""
        return self._seats.take(slots)

    def free(self, cache: KVCache) -> None:
        """See `Passes`."""
        self._seats.give(cache)

    def _seat(self, slots: int) -> KVCache:
        if self._rotary.reserve(slots):
            self._graphs.forget()
        return KVCache(
            len(self.blocks), self._architecture, self._dtype, self._device, slots, fixed=True
        )

    def _gone(self, seat: KVCache) -> None:
        self._graphs.forget(lambda key: isinstance(key, tuple) and key[0] is seat)

    # --- passes ------------------------------------------------------------------------------

    def filled(self, rows: int) -> int:
        """See `Passes`."""
        return filled(rows, self._sizes)

    def run(
        self,
        texts: Sequence[Text],
        rows: Tensor,
        stopped: Stopped,
        taps: dict[int, Tensor | None],
    ) -> Tensor | None:
        """See `Passes`."""
        pieces = self._pieces(texts)
        few = len(taps) <= _TAPS
        apart = self._graphs.record and few and len(texts) < self.together
        made: list[list[Tensor]] = []
        for group in [[piece] for piece in pieces] if apart else [pieces]:
            if stopped(0):
                return None
            lone = group[0] if apart and group[0].order is None else None
            found = (
                self._together(group, rows, stopped, list(taps))
                if lone is None
                else self._replayed(lone, rows, tuple(taps))
            )
            if found is None:
                return None
            # What is replayed stands where the next piece will stand.
            made.append([each.clone() for each in found] if len(pieces) > 1 and apart else found)
        hidden, *tapped = made[0] if len(made) == 1 else map(torch.cat, zip(*made, strict=True))
        taps.update(zip(taps, tapped, strict=True))
        return hidden

    def weigh(self, text: Text, rows: Tensor, now: Callable[[], float]) -> None:
        """See `Passes`."""
        if not self._graphs.record:
            return
        (piece,) = self._pieces([text])

        def alone() -> Tensor:
            return self._replayed(piece, rows, ())[0]

        def beside(count: int) -> Tensor:
            made = self._together([piece] * count, rows, lambda index: False, ())
            assert made is not None  # nobody stops it
            return made[0]

        one, first, both = (
            _least(work, now) for work in (alone, partial(beside, 1), partial(beside, 2))
        )
        pays = one < _PAYS * first
        self.together = together_from(one, first, both - first) if pays else 1

    def _pieces(self, texts: Sequence[Text]) -> list[_Piece]:
        pieces: list[_Piece] = []
        for placement, cache in texts:
            for a, b, lone in _runs(placement, self._sizes[-1]):
                part = placement.take(range(a, b))
                size, cut = filled(b - a, self._sizes), cut_of(int(part.positions.max()))
                begin = pieces[-1].own.stop if pieces else 0
                piece = _Piece(part, cache, begin, size, chunks(cut, cache.slots))
                if lone:
                    slots = torch.from_numpy(order(part)).to(self._device)
                    piece = replace(piece, order=slots)
                pieces.append(piece)
        return pieces

    def _replayed(self, piece: _Piece, rows: Tensor, taps: Sequence[int]) -> list[Tensor]:
        """One piece: what leaves the last layer, and what is tapped. [rows, width] each, until the
        next one."""
        frame = self._frames.get(piece.size)
        if frame is None:
            width = rows.shape[1]
            frame = self._frames[piece.size] = Frame(piece.size, width, self._dtype, self._device)
        frame.wait()
        frame.own_hidden[: piece.rows] = rows[piece.own]
        frame.own_hidden[piece.rows :] = 0.0  # no number may come out of what nobody reads
        frame.own_ints[:] = table(piece.placement, piece.size, dump(piece.cache))
        frame.send()
        key = (piece.cache, piece.size, piece.chunks, taps)
        made = self._graphs.run(key, partial(self._layers, frame, piece, taps))
        return [each[: piece.rows] for each in made]

    def _layers(self, frame: Frame, piece: _Piece, taps: Sequence[int]) -> list[Tensor]:
        """All layers over what stands in a frame. Nothing of the piece is read but what its key
        names."""
        span = self._span(frame.ints, piece, 0)
        made = self._through(frame.hidden, frame.ints, [span], lambda index: False, taps)
        assert made is not None  # nobody stops it
        return made

    def _together(
        self, pieces: Sequence[_Piece], rows: Tensor, stopped: Stopped, taps: Sequence[int]
    ) -> list[Tensor] | None:
        """All pieces, kernel by kernel; None if that was stopped."""
        size = sum(piece.size for piece in pieces)
        hidden = torch.zeros(size, rows.shape[1], dtype=self._dtype)
        ints = torch.zeros(size, COLUMNS, dtype=torch.int64)
        first, real = 0, []
        for piece in pieces:
            hidden[first : first + piece.rows] = rows[piece.own]
            columns = table(piece.placement, piece.size, dump(piece.cache))
            ints[first : first + piece.size] = torch.from_numpy(columns)
            real.append(slice(first, first + piece.rows))
            first += piece.size
        there = ints.to(self._device)
        spans: list[CachedRows] = []
        for piece in pieces:
            spans.append(self._span(there, piece, spans[-1].end if spans else 0))
        pace = Pace(self._device)

        def paced(index: int) -> bool:
            pace.step()
            return stopped(index)

        made = self._through(hidden.to(self._device), there, spans, paced, taps)
        if made is None:
            return None
        return [torch.cat([each[own] for own in real]) for each in made]

    def _span(self, ints: Tensor, piece: _Piece, first: int) -> CachedRows:
        return FilledRows(
            ints[first : first + piece.size],
            piece.cache,
            piece.chunks,
            first=first,
            order=piece.order,
        )

    def _through(
        self,
        hidden: Tensor,
        ints: Tensor,
        spans: Sequence[CachedRows],
        stopped: Stopped,
        taps: Sequence[int],
    ) -> list[Tensor] | None:
        """What leaves the last layer, and what is tapped."""
        rotations = self._rotary.rows(ints[:, POSITION].contiguous())
        tapped: dict[int, Tensor | None] = dict.fromkeys(taps)
        out = run_blocks(self.blocks, hidden, rotations, spans, stopped, tapped)
        if out is None:
            return None
        return [out, *(each for each in tapped.values() if each is not None)]


def together_from(one: float, first: float, more: float) -> float:
    """From how many requests on they take less time together, where the first one takes `first`
    seconds and each further one `more`, than apart, where each takes `one`; infinite: never."""
    if one <= more:
        return inf
    return max(floor((first - more) / (one - more)) + 1, 2)


def _least(work: Callable[[], Tensor], now: Callable[[], float]) -> float:
    """The least seconds of a few times, once it has been done."""

    def once() -> float:
        begin = now()
        work()[-1, -1].item()
        return now() - begin

    once()
    first = once()
    return first if first > _SLOW else min(first, *(once() for _ in range(_TURNS - 1)))


def _runs(placement: Placement, most: int) -> Iterator[tuple[int, int, bool]]:
    """Rows a..b-1 of each piece, and whether it is a lone row whose text is not in order."""
    alone = deep(placement)
    rows, a = len(alone), 0
    while a < rows:
        b = a + 1
        while not alone[a] and b < min(rows, a + most) and not alone[b]:
            b += 1
        yield a, b, bool(alone[a])
        a = b
