"""What a one-pass head has computed of one text on a device, by work that is recorded."""

import weakref
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gardener.draft.block import BlockNetwork
from gardener.draft.device.lane import Lane
from gardener.draft.device.seats import MOST_RECORDED, Seat, Seats
from gardener.draft.device.steps import bias, filled, looked
from gardener.draft.ranking import Ranking, apart, fetched, likeliest, together
from gardener.errors import LocalError
from gardener.model.attention import Span, quick_attention
from gardener.model.device.fetch import Fetch
from gardener.model.device.graphs import Graphs, Recorder
from gardener.model.device.parcel import Parcel, Part

AHEAD = 256
"""Tokens beyond the prompt that a text has room for from the start."""


class _Size(NamedTuple):
    """What a piece of work is: first so many tokens join the context, with those that fill up; then
    a block over so many slots is computed (0: none); then so many rows of it are asked about, for
    the best guesses or for their outputs, as in `steps.Steps.work`."""

    joining: int
    look: int
    asked: int
    best: bool


class _Block(NamedTuple):
    """The block behind the token `anchor` at this place."""

    anchor: int
    place: int


class _Question(NamedTuple):
    """slots: of the rows that are asked about, after the tokens `before`."""

    slots: Sequence[int]
    before: Sequence[int]
    best: bool


class RecordedBlocks:
    """What all texts of a network share: seats, recordings, and what is sent. All of their work is
    given to the device in its `lane`."""

    def __init__(self, network: BlockNetwork, recorder: Recorder, width: int) -> None:
        """`width`: most guesses at one place."""
        self.network, self._width = network, width
        self._graphs, self.fetch = Graphs(recorder, MOST_RECORDED), Fetch(network.device)
        self.lane = Lane(network.device)
        self.seats = Seats(network, self._graphs)
        self._kernel = quick_attention(network.device)
        self._parcels: dict[_Size, Parcel] = {}

    def open(self, prompt: int) -> "RecordedContext":
        """Of a text with a prompt of so many tokens."""
        return RecordedContext(self, prompt)

    def work(
        self,
        seat: Seat,
        joining: tuple[int, Tensor] | None,
        block: _Block | None,
        question: _Question | None,
    ) -> Tensor | None:
        """Let features [tokens, taps * width] join the context from a place on, compute a block,
        and see what follows rows of it, as far as that is due. See `Steps.work`."""
        size = _Size(
            0 if joining is None else filled(len(joining[1])),
            0 if block is None else looked(block.place + self.network.parts.size),
            0 if question is None else filled(len(question.slots)),
            question is not None and question.best,
        )
        parcel = self._parcels.get(size)
        if parcel is None:
            features = 0 if joining is None else joining[1].shape[1]
            parcel = self._parcels[size] = self._parcel(size, features)
        parcel.wait()
        if joining is not None:
            self._fill_joining(parcel.here, *joining, seat.dump)
        if block is not None:
            self._fill_block(parcel.here, block)
        if question is not None:
            for name, numbers in (("asked", question.slots), ("before", question.before)):
                parcel.here[name].zero_()[: len(numbers)] = torch.tensor(numbers)
        parcel.send()
        sent = parcel.there
        if block is not None and "embedded" in sent:
            sent["embedded"].copy_(self.network.embed(parcel.here["tokens"]))
        return self._graphs.run((seat.number, size), lambda: self._work(seat, size, sent))

    def _fill_joining(
        self, here: dict[str, Tensor], place: int, features: Tensor, dump: int
    ) -> None:
        count = len(features)
        here["joining"][:count] = torch.arange(place, place + count)
        here["joining"][count:] = dump
        here["features"][:count] = features
        here["features"][count:] = 0.0

    def _fill_block(self, here: dict[str, Tensor], block: _Block) -> None:
        end = block.place + self.network.parts.size
        here["places"].copy_(torch.arange(block.place, end))
        here["tokens"].copy_(torch.tensor(self.network.tokens_of(block.anchor)))
        here["hidden"][:, :end] = False
        here["hidden"][:, end:] = True

    def _parcel(self, size: _Size, features: int) -> Parcel:
        network, rows = self.network, self.network.parts.size
        parts = {}
        if size.joining:
            parts["joining"] = Part(torch.int64, (size.joining,))
            parts["features"] = Part(network.dtype, (size.joining, features))
        if size.look:
            parts["places"] = parts["tokens"] = Part(torch.int64, (rows,))
            parts["hidden"] = Part(torch.bool, (rows, size.look))
            if not network.embeds_there:
                parts["embedded"] = Part(network.dtype, (rows, network.shape.width))
        if size.asked:
            parts["asked"] = parts["before"] = Part(torch.int64, (size.asked,))
        return Parcel(parts, network.device)

    def _work(self, seat: Seat, size: _Size, given: dict[str, Tensor]) -> Tensor | None:
        """It reads fixed addresses only, never waits, and may be done twice."""
        network = self.network
        if size.joining:
            places, features = given["joining"], given["features"]
            features = features.nan_to_num(0.0, 0.0, 0.0)  # else it would get into keys for good
            network.see(seat.cache, features, places, seat.rotations(places))
        if size.look:
            places = given["places"]
            embeds = network.embeds_there
            embedded = network.embed(given["tokens"]) if embeds else given["embedded"]
            biases: dict[int | None, Tensor] = {None: bias(given["hidden"], network.dtype)}
            span = Span(0, len(places), seat.cache, self._kernel, places, size.look, biases)
            made = network.normed(network.run(embedded, seat.rotations(places), span))
            seat.outputs.index_copy_(0, places, made)
        if not size.asked:
            return None
        outputs = seat.outputs.index_select(0, given["asked"])
        if not size.best:
            return outputs
        logits = network.logits(outputs, given["before"])
        return together(*likeliest(logits, self._width, network.tokens))


class RecordedContext:
    """See `block_context.Context`, which does the same anew each time. Output rows of a block stand
    in the slots of its places."""

    def __init__(self, recorded: RecordedBlocks, prompt: int) -> None:
        self._recorded, self.lane = recorded, recorded.lane
        self._seat = recorded.seats.take(prompt + AHEAD)
        self.known = 0
        self._joining: tuple[int, Tensor] | None = None  # to be computed with what comes next
        self._due: _Block | None = None
        self._place: int | None = None  # of the last block
        weakref.finalize(self, recorded.seats.give_back, self._seat).atexit = False

    def add(self, features: Tensor) -> None:
        """See `Context`."""
        self._flush()
        self._joining = self.known, features
        self.known += len(features)
        self._recorded.seats.reserve(self._seat, self.known)

    def block(self, anchor: int) -> None:
        """See `Context`."""
        self._place = self.known
        self._due = _Block(anchor, self._place)
        self._recorded.seats.reserve(self._seat, self._place + self._recorded.network.parts.size)

    def best(
        self,
        levels: Sequence[int],
        before: Sequence[int],
        ranking: Ranking,
        count: int,
        text: Sequence[int],
        paths: Sequence[Sequence[int]],
    ) -> tuple[Tensor, Tensor]:
        """See `Context`."""
        if self._place is None:
            raise LocalError("something is asked of a block that is not there")
        first = self._place + (0 if self._recorded.network.parts.follows else 1)
        question = _Question([first + level for level in levels], before, ranking.plain)
        made = self._flush(question)
        assert made is not None
        asked, recorded = len(levels), self._recorded
        if ranking.plain:
            tokens, log_q = apart(recorded.fetch(made)[:, :asked, :count])
            return tokens, ranking.bounded(log_q)
        logits = recorded.network.logits(made[:asked], torch.tensor(before))
        return fetched(*ranking.best(logits, count, text, paths))

    @torch.inference_mode()
    def beginning(self, tokens: int) -> "RecordedContext":
        """See `Context`."""
        self._flush()
        copy = RecordedContext(self._recorded, tokens)
        copy._seat.begin_as(self._seat, np.arange(tokens))
        copy.known = tokens
        return copy

    def _flush(self, question: _Question | None = None) -> Tensor | None:
        """Compute what is due, and answer a question."""
        joining, block = self._joining, self._due
        self._joining = self._due = None
        if joining is None and block is None and question is None:
            return None
        return self._recorded.work(self._seat, joining, block, question)
