"""A stage that computes nothing: it plays back what the target model wrote, and charges the time
that a forward pass would take.

A row is *true* if it lies on the recorded text: its token is the one recorded at its position, and
its mask shows exactly one row for each position before it, all of them true. Stage 1 derives that
from tokens and masks. It writes the pick into the first four bytes of the row's hidden state, where
the later stages read it; -1 stands for a row that is not true. So a row that is lost, moved or
given a wrong mask by the real schedulers and slots leads to a wrong text. What the target would
pick after a row that is not true is never needed."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gardener.decoding.curves import Curve
from gardener.errors import LocalError, RemoteError, StageFailed
from gardener.model.checkpoint.slices import Slice
from gardener.model.placement import Ints, Placement
from gardener.protocol.messages import Open, Segment
from gardener.protocol.sampling import Sampling
from gardener.protocol.tensors import Tensor
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.recording import Recording
from gardener.rings.simulate.worker import Meter
from gardener.stages.forward import ComputedSegment, PlacedSegment

Picks = NDArray[np.int32]


class _Text:
    """What stage 1 knows about a request."""

    def __init__(self, sampling: Sampling, written: int) -> None:
        self.sampling, self.written = sampling, written
        self.prompt: list[int] = []  # the part that has arrived
        self.recording: Recording | None = None  # once all of it has arrived
        self.true = np.zeros(256, np.bool_)  # by slot
        self.tokens = np.zeros(256, np.int64)  # by slot

    def reserve(self, high: int) -> None:
        more = max(high, 2 * len(self.true)) - len(self.true)
        if high > len(self.true):
            self.true, self.tokens = np.pad(self.true, (0, more)), np.pad(self.tokens, (0, more))

    def take(self, source: "_Text", slots: Ints) -> None:
        """Begin with the rows in these slots of another text."""
        self.prompt = source.tokens[slots].tolist()
        self.keep(source, slots)

    def keep(self, source: "_Text", slots: Ints) -> None:
        """Hold nothing but the rows in these slots of a text, in slots 0, 1 and so on."""
        self.true, self.tokens = source.true[slots], source.tokens[slots]


class SimulatedStage:
    """Implements `computes.Computes`. Hidden states and features are float32 and `width` wide."""

    def __init__(
        self, held: Slice, library: Library, curve: Curve, meter: Meter, *, width: int
    ) -> None:
        """`curve`: the seconds of a forward pass, which are charged to `meter`."""
        self.slice, self.width = held, width
        self._library, self._curve, self._meter = library, curve, meter
        self._read: Callable[[PlacedSegment], Picks] = (
            self._judge if held.is_first else self._receive
        )
        self._texts: dict[int, _Text] = {}
        self.layer = held.first

    @property
    def texts(self) -> tuple[int, ...]:
        """The requests of which it holds rows; none but at stage 1."""
        return tuple(self._texts)

    def check_open(self, message: Open) -> None:
        """Raises StageFailed if log probabilities are wanted, which nobody has recorded."""
        if message.logprobs is not None:
            raise StageFailed(
                "a simulated ring has no log probabilities: ask for them in a real one, with "
                "--local or --peer"
            )

    def open(self, message: Open, shared: Ints | None = None) -> None:
        if self.slice.is_first:
            text = self._texts[message.request] = _Text(message.sampling, message.written)
            if message.prefix is not None and shared is not None:
                text.take(self._texts[message.prefix[0]], shared)

    def keep(self, request: int, slots: Ints) -> None:
        text = self._texts.get(request)  # none at the later stages
        if text is not None:
            text.keep(text, slots)
        if self.slice.is_last:
            self._library.forget(request)

    def close(self, request: int) -> None:
        self._texts.pop(request, None)
        if self.slice.is_last:
            self._library.forget(request)

    def check(self, segment: Segment) -> None:
        if segment.ids and (segment.hidden is None) != self.slice.is_first:
            raise RemoteError(
                "the first stage takes rows without hidden states, the others with them"
            )
        if segment.hidden is not None and segment.hidden.shape[1] != self.width:
            raise RemoteError(f"hidden states are {segment.hidden.shape[1]} wide")

    def run(self, batch: Sequence[PlacedSegment]) -> list[ComputedSegment] | None:
        """One forward pass, which may be stopped after each layer if all of its segments are
        cancelled."""
        for placed in batch:
            self._move(placed)
        rows = sum(placed.rows for placed in batch)
        if rows:
            flags = [placed.cancelled for placed in batch]
            self.layer = self.slice.first

            def stopped() -> bool:  # after each layer but the last
                self.layer += 1
                return all(flag.is_set() for flag in flags)

            self._meter.charge(self._curve(rows), self.slice.end - self.slice.first, stopped)
        return [self._run(placed) for placed in batch]

    def _move(self, placed: PlacedSegment) -> None:
        text, moves = self._texts.get(placed.request), placed.placement.moves
        if text is not None and moves is not None:
            text.reserve(int(moves.targets.max()) + 1)
            for known in (text.true, text.tokens):
                known[moves.targets] = known[moves.sources]

    def _run(self, placed: PlacedSegment) -> ComputedSegment:
        if not placed.rows:
            return ComputedSegment()
        picks, held = self._read(placed), self.slice
        features = tuple(
            self._library.features(placed.request, tap, placed.placement.positions, picks >= 0)
            for tap in placed.taps
            if held.first <= tap < held.end or (held.is_last and tap == held.end)
        )
        if held.is_last:
            return ComputedSegment(
                picks=tuple(np.maximum(picks[placed.pick_rows], 0).tolist()), features=features
            )
        hidden = np.zeros((placed.rows, self.width), np.int32)
        hidden[:, 0] = picks
        return ComputedSegment(Tensor("float32", hidden.shape, hidden.tobytes()), features=features)

    def _receive(self, placed: PlacedSegment) -> Picks:
        if placed.hidden is None:
            raise LocalError("a segment without hidden states reached a stage that needs them")
        return np.frombuffer(placed.hidden.data, np.int32).reshape(placed.rows, self.width)[:, 0]

    # --- stage 1 -----------------------------------------------------------------------------

    def _judge(self, placed: PlacedSegment) -> Picks:
        """What the target writes after each row; -1 for a row that is not true."""
        text, place = self._texts[placed.request], placed.placement
        recording = text.recording or self._find(text, placed)
        text.reserve(place.high)
        picks = np.full(placed.rows, -1, np.int32)
        rows = zip(placed.tokens, place.positions.tolist(), place.slots.tolist(), strict=True)
        for row, (token, position, slot) in enumerate(rows):
            here = position < len(recording.tokens) and recording.tokens[position] == token
            text.tokens[slot] = token
            text.true[slot] = true = here and self._sees_all(text, place, row, position)
            if true:
                picks[row] = self._library.follows(recording, position)
        return picks

    def _sees_all(self, text: _Text, place: Placement, row: int, position: int) -> bool:
        """Whether the mask of a row shows one true row for each position before its own."""
        true = text.true[: place.high]
        tail = np.ones(len(true) - place.base, np.bool_) if place.mask is None else place.mask[row]
        others = place.base + np.count_nonzero(tail) - 1
        text.true[place.slots[row]] = False  # left by an earlier row in this slot
        seen = np.count_nonzero(true[: place.base]) + np.count_nonzero(tail & true[place.base :])
        return bool(others == position == seen)

    def _find(self, text: _Text, placed: PlacedSegment) -> Recording:
        """The recording of the prompt, as far as it has arrived: its last row is the first one
        whose pick is asked for."""
        whole = bool(len(placed.pick_rows))
        text.prompt += placed.tokens[: placed.pick_rows[0] + 1 if whole else placed.rows]
        found = self._library.play(placed.request, text.prompt, whole, text.sampling, text.written)
        text.recording = found if whole else None
        return found
