"""The rows of one text that a draft network has computed on a device, by work that is recorded."""

import weakref
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gardener.draft.computed_rows import SPARE
from gardener.draft.device.lane import Lane
from gardener.draft.device.seats import MOST_RECORDED, Seat, Seats
from gardener.draft.device.steps import (
    POSITION,
    SLOT,
    SOURCE,
    TOKEN,
    Size,
    Steps,
    filled,
    looked,
    move,
)
from gardener.draft.network import DraftNetwork
from gardener.draft.ranking import Ranking, apart, fetched
from gardener.model.device.fetch import Fetch
from gardener.model.device.graphs import Graphs, Recorder
from gardener.model.device.parcel import Parcel, Part
from gardener.model.kv_slots import SlotTable
from gardener.model.placement import Moves, Placement
from gardener.protocol.room import MOST_CONTEXT

AHEAD = 256
"""Slots beyond the prompt that a text has room for from the start."""

TOGETHER = 64
"""Most rows that are computed and asked about in one piece of work; beyond, logits would take more
than the start of another one does."""


class _Due(NamedTuple):
    """Rows that are placed, but not computed yet: what is asked next goes with them.

    sources   slots whose outputs they read; if there are features, of the row before the first
    features  [rows, taps * width] of the target, on the CPU; None: they read outputs
    """

    tokens: Sequence[int]
    sources: Sequence[int]
    features: Tensor | None
    placement: Placement


class Recorded:
    """What all texts of a network share: seats, recordings, and what is sent. All of their work is
    given to the device in its `lane`, except where it is said to be from any thread."""

    def __init__(self, network: DraftNetwork, recorder: Recorder, width: int) -> None:
        """`width`: most guesses at one place."""
        self.network, self._steps = network, Steps(network, width)
        self.lane = Lane(network.device)
        self._graphs, self._moving = (Graphs(recorder, MOST_RECORDED) for _ in range(2))
        self.seats = Seats(network, self._graphs, self._moving)
        self.fetch = Fetch(network.device)
        self._parcels: dict[Size, Parcel] = {}
        self._moved: dict[int, Parcel] = {}

    def open(self, prompt: int) -> "RecordedRows":
        """Rows of a text whose prompt has so many, at least one."""
        return RecordedRows(self, prompt)

    def step(self, seat: Seat, due: _Due | None, asked: Sequence[int], best: bool) -> Tensor | None:
        """Compute what is due, and see what follows the rows in the slots `asked`. See
        `Steps.work`; what is given goes with the next step."""
        size = self._size(due, len(asked), best)
        parcel = self._parcels.get(size)
        if parcel is None:
            features = 0 if due is None or due.features is None else due.features.shape[1]
            parcel = self._parcels[size] = self._steps.parcel(size, features)
        parcel.wait()
        there = parcel.here["asked"].numpy()
        there[: len(asked)], there[len(asked) :] = asked, 0
        if due is not None:
            self._fill(parcel, due, seat)
        parcel.send()
        if due is not None and "embedded" in parcel.there:
            embedded = self.network.embed(torch.tensor(due.tokens))
            parcel.there["embedded"][: len(embedded)] = embedded
        sent = parcel.there
        return self._graphs.run((seat.number, size), lambda: self._steps.work(seat, size, sent))

    def _size(self, due: _Due | None, asked: int, best: bool) -> Size:
        if due is None:
            return Size(0, 0, False, filled(asked), best)
        rows = filled(len(due.tokens))
        look, true = looked(due.placement.high), due.features is not None
        return Size(rows, look, true, rows if asked else 0, best)

    def _fill(self, parcel: Parcel, due: _Due, seat: Seat) -> None:
        rows, placement = len(due.tokens), due.placement
        ints = parcel.here["ints"].numpy()
        ints[TOKEN, :rows] = due.tokens
        ints[POSITION, :rows] = placement.positions
        ints[SLOT, :rows] = placement.slots
        ints[SOURCE, : len(due.sources)] = due.sources
        ints[:, rows:] = 0
        ints[SLOT, rows:] = seat.dump
        hidden = parcel.here["hidden"].numpy()
        hidden[:, :rows, placement.high :] = True
        for of_window, window in zip(hidden, self._steps.windows, strict=True):
            np.logical_not(placement.within(window), out=of_window[:rows, : placement.high])
        hidden[:, rows:] = True
        hidden[:, rows:, 0] = False  # nothing at all would not be a number
        if due.features is not None:
            parcel.here["features"][:rows] = due.features
            parcel.here["features"][rows:] = 0.0

    def move(self, seat: Seat, moves: Moves) -> None:
        """Let what stands in some slots find its place."""
        count = len(moves.sources)
        size = filled(count)
        parcel = self._moved.get(size)
        if parcel is None:
            part = Part(torch.int64, (size,))
            parcel = Parcel({"sources": part, "targets": part}, self.network.device)
            self._moved[size] = parcel
        key, sent = (seat.number, size), parcel.there
        sources, targets = (parcel.here[name].numpy() for name in ("sources", "targets"))
        turns = (0, count) if key not in self._moving else (count,)
        for turn in turns:  # what is recorded is done twice: that may move nothing
            parcel.wait()
            sources[:turn], targets[:turn] = moves.sources[:turn], moves.targets[:turn]
            sources[turn:] = targets[turn:] = seat.dump
            parcel.send()
            self._moving.run(key, lambda: move(seat, sent))


class RecordedRows:
    """See `ComputedRows`, which does the same anew each time."""

    def __init__(self, recorded: Recorded, prompt: int, shared: int = 0) -> None:
        self._recorded, self.prompt, self.lane = recorded, prompt, recorded.lane
        self.table = SlotTable(prompt, MOST_CONTEXT, SPARE, shared)
        self._seat = recorded.seats.take(prompt + AHEAD)
        self._due: _Due | None = None
        weakref.finalize(self, recorded.seats.give_back, self._seat).atexit = False

    @torch.inference_mode()
    def beginning(self, shared: int, prompt: int) -> "RecordedRows":
        """See `ComputedRows`."""
        self._flush()
        rows = RecordedRows(self._recorded, prompt, shared)
        rows._seat.begin_as(self._seat, self.table.first(shared))
        return rows

    @property
    def any_certain(self) -> bool:
        """See `ComputedRows`."""
        return self.table.certain > 0

    def run_certain(self, tokens: Sequence[int], features: Tensor, placement: Placement) -> None:
        """See `ComputedRows`."""
        if not self._recorded.network.taps:
            return self._stage(_Due(tokens, [], None, placement))
        first = int(placement.positions[0])
        before = first - 1 if first else self._seat.nothing
        return self._stage(_Due(tokens, [before], features, placement))

    def run_tree(self, tokens: Sequence[int], parents: Sequence[int], placement: Placement) -> None:
        """See `ComputedRows`."""
        self._stage(_Due(tokens, self._slots(parents), None, placement))

    def best(
        self,
        rows: Sequence[int],
        ranking: Ranking,
        count: int,
        text: Sequence[int],
        paths: Sequence[Sequence[int]],
    ) -> tuple[Tensor, Tensor]:
        """See `ComputedRows`."""
        if self._due is not None:
            size = filled(len(self._due.tokens))
            if size > TOGETHER or len(rows) > size:
                self._flush()
        due, self._due = self._due, None
        made = self._recorded.step(self._seat, due, self._slots(rows), ranking.plain)
        assert made is not None
        asked, recorded = len(rows), self._recorded
        if ranking.plain:
            tokens, log_q = apart(recorded.fetch(made)[:, :asked, :count])
            return tokens, ranking.bounded(log_q)
        logits = recorded.network.logits(made[:asked])
        return fetched(*ranking.best(logits, count, text, paths))

    def take_over(self, slot: int) -> None:
        """See `ComputedRows`: its output stands in its slot, which is the root's."""

    def advance(self, settled: Sequence[int], root: int) -> None:
        """See `ComputedRows`."""
        self.table.advance(settled, root)
        moves = self.table.moves()
        if moves is not None:
            self._flush()
            self._recorded.seats.reserve(self._seat, int(moves.targets.max()) + 1)
            self._recorded.move(self._seat, moves)

    def _stage(self, due: _Due) -> None:
        self._flush()
        self._recorded.seats.reserve(self._seat, due.placement.high)
        self._due = due

    def _flush(self) -> None:
        """Compute what is due."""
        due, self._due = self._due, None
        if due is not None:
            self._recorded.step(self._seat, due, (), False)

    def _slots(self, rows: Sequence[int]) -> list[int]:
        """Of the root or of rows of the tree."""
        root = self.table.root
        return [self.table.certain - 1 if row == root else self.table.slot(row) for row in rows]
