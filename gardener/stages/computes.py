"""What a scheduler asks of a stage, on the event loop and on the worker thread."""

from collections.abc import Sequence
from typing import Protocol

from gardener.model.checkpoint.slices import Slice
from gardener.model.placement import Ints
from gardener.protocol.messages import Open, Segment
from gardener.stages.forward import ComputedSegment, PlacedSegment


class Computes(Protocol):
    """See `executor.Executor`. What is checked, is checked on the event loop; all else is done on
    the worker thread."""

    slice: Slice
    layer: int
    """Which layer of the model is computed, as long as a pass lasts; as many as the model has: its
    head. Written by the worker thread."""

    def check_open(self, message: Open) -> None:
        """Raise StageFailed for a request that cannot be computed here."""

    def open(self, message: Open, shared: Ints | None = None) -> None: ...

    def keep(self, request: int, slots: Ints) -> None: ...

    def close(self, request: int) -> None: ...

    def check(self, segment: Segment) -> None:
        """Raise RemoteError for a segment that cannot be computed here."""

    def run(self, batch: Sequence[PlacedSegment]) -> list[ComputedSegment] | None: ...


class Opened:
    """The same stage, for the worker thread alone, to whom a request may come that could not be
    opened: its first segments are on their way to the worker before the event loop hears of it.
    They are left out of their pass, so that all else in it is computed."""

    def __init__(self, stage: Computes) -> None:
        self._stage = stage
        self._unopened: set[int] = set()  # until they are closed

    def open(self, message: Open, shared: Ints | None) -> None:
        """Raises whatever goes wrong."""
        try:
            self._stage.open(message, shared)
        except BaseException:
            self._unopened.add(message.request)
            raise

    def keep(self, request: int, slots: Ints) -> None:
        if request not in self._unopened:
            self._stage.keep(request, slots)

    def close(self, request: int) -> None:
        self._unopened.discard(request)
        self._stage.close(request)

    def run(self, batch: Sequence[PlacedSegment]) -> list[ComputedSegment] | None:
        """One pass, a result for each segment: an empty one where there is no cache. None if all
        were cancelled on the way."""
        opened = [placed for placed in batch if placed.request not in self._unopened]
        done = self._stage.run(opened) if opened else []
        if done is None or len(opened) == len(batch):
            return done
        results = iter(done)
        return [
            ComputedSegment() if placed.request in self._unopened else next(results)
            for placed in batch
        ]
