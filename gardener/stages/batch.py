"""Segments that are computed in one forward pass, and what leaves the stage after it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from gardener.protocol.messages import Segment, Timing, Verdict, microseconds
from gardener.stages.forward import ComputedSegment, PlacedSegment
from gardener.stages.request import Request
from gardener.stages.segments import keep_rows, verdict_of, with_broken


@dataclass(frozen=True)
class BatchEntry:
    """A segment with the rows that lived when the batch was built, and the seconds it waited.

    placed: None where no row lived. Such a segment is not computed, but it is handed on.
    """

    request: Request
    segment: Segment
    waited: float
    placed: PlacedSegment | None

    @property
    def rows(self) -> int:
        return 0 if self.placed is None else self.placed.rows

    def cancel_if_dead(self) -> None:
        """Tell the worker thread if no row lives any more."""
        if self.placed is not None and not self.request.living(self.segment):
            self.placed.cancelled.set()

    def answer(
        self, computed: ComputedSegment | None, timing: Timing, is_last: bool
    ) -> Segment | Verdict:
        """What leaves the stage. computed: None if nothing was, or if the pass was stopped."""
        segment, times = self.segment, (*self.segment.times, timing)
        if computed is None or self.placed is None:
            if is_last:
                return Verdict(segment.request, segment.seq, (), (), times)
            return msgspec.structs.replace(keep_rows(segment, []), times=times)
        # Rows that were computed may be dead by now: nobody after this stage need see them.
        living = self.request.living(segment)
        features = (*segment.features, *computed.features)
        if computed.hidden is not None:
            moved = msgspec.structs.replace(
                segment, hidden=computed.hidden, times=times, features=features
            )
            return keep_rows(with_broken(moved, computed.broken), living)
        return verdict_of(
            segment,
            self.placed.pick_rows,
            computed.picks,
            living,
            times,
            features,
            computed.logprobs,
            computed.broken,
        )


@dataclass(frozen=True)
class Batch:
    """Segments in the order in which they came. They leave in the same order. `since`: when they
    began to be computed, on `clock.now`."""

    entries: tuple[BatchEntry, ...] = ()
    since: float = 0.0

    @property
    def placed(self) -> list[PlacedSegment]:
        """What there is to compute."""
        return [entry.placed for entry in self.entries if entry.placed is not None]

    @property
    def rows(self) -> int:
        return sum(entry.rows for entry in self.entries)

    def cancel_dead(self) -> None:
        """Tell the worker thread which segments have died."""
        for entry in self.entries:
            entry.cancel_if_dead()

    def results(
        self, computed: Sequence[ComputedSegment] | None, seconds: float
    ) -> Iterator[tuple[BatchEntry, ComputedSegment | None, Timing]]:
        """What `BatchEntry.answer` is made of, for each request that has not ended by then.

        computed  what the pass made of `placed`; None if it was stopped because all rows had died
        seconds   that the pass took
        """
        # The time of a pass that was stopped half-way says nothing about its rows.
        rows = 0 if computed is None else self.rows
        results = iter(computed or ())
        for entry in self.entries:
            waited = microseconds(entry.waited)
            timing, result = Timing(waited, 0), None
            if entry.placed is not None:
                timing = Timing(waited, microseconds(seconds), rows)
                result = next(results, None)
            if entry.request.is_live:
                yield entry, result, timing
