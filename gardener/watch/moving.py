"""How segments move along the ring: how long they take lately, and about where each one is.

The holder knows when a segment was sent, and its verdict says how long it spent at every stage.
Where a segment is until then is estimated from what others took.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from gardener.runtime.trace import Record
from gardener.watch.snapshot import WatchedRequest
from gardener.watch.stages import means
from gardener.watch.status import MovingSegment

RECENT = 8
"""The number of segments that say how long one takes now."""


class Pace(NamedTuple):
    """Mean seconds of the most recent segments: from sending one to its verdict, and at each stage,
    for both waiting and computing."""

    flight: float = 0.0
    spent: tuple[float, ...] = ()


class PaceMeter:
    """Measures the pace of one request's segments by their verdicts."""

    def __init__(self) -> None:
        self._verdicts: deque[Record] = deque(maxlen=RECENT)
        self._writes = False  # a token has come
        self._written = False  # and a verdict after it

    def read(self, record: Record) -> None:
        """Take note of a record."""
        if record.what == "emitted":
            self._writes = True
        elif record.what == "judged":
            if self._writes and not self._written:
                self._verdicts.clear()  # the prefill is another kind of work
            self._written = self._writes
            self._verdicts.append(record)

    def pace(self) -> Pace:
        """The pace of the most recent segments."""
        verdicts = self._verdicts
        if not verdicts:
            return Pace()
        spent = tuple(map(sum, zip(*means(verdicts), strict=True)))
        return Pace(sum(each.seconds for each in verdicts) / len(verdicts), spent)


def moving(request: WatchedRequest, pace: Pace, now: float) -> list[MovingSegment]:
    """All segments of a request that are under way, the oldest first."""
    tree, found = request.tree, []
    for flight in request.flights:
        alive = sum(node in tree for node in flight.ids)
        root = int(tree.root in flight.ids)
        dead = flight.tree_rows - alive
        stage, progress = estimate(now - flight.left, pace.flight, pace.spent)
        rows = flight.prompt, root, alive - root, dead
        found.append(MovingSegment(flight.seq, *rows, stage, progress, request.number))
    return found


def estimate(elapsed: float, flight: float, spent: Sequence[float]) -> tuple[int, float]:
    """The stage (from 1) where a segment is `elapsed` seconds after it was sent, and its progress.

    What remains of the mean time from sending to verdict, after the mean times `spent` at the
    stages, is shared by the hops between them. A late segment is at the end of the last stage; as
    long as nothing was measured, every segment is at the start of the first.
    """
    hop = max(flight - sum(spent), 0.0) / (len(spent) + 1)
    if flight <= 0 or not spent:
        return 1, 0.0
    for stage, seconds in enumerate(spent, 1):
        span = hop + seconds
        if elapsed < span:
            return stage, elapsed / span
        elapsed -= span
    return len(spent), 1.0
