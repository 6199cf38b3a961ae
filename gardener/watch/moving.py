"""How segments move along the ring: how long they take lately, and about where each one is.

The holder knows when a segment was sent, and its verdict says how long it spent at every stage.
Where a segment is until then is estimated from what others took.
"""

import math
from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from gardener.runtime.trace import Record
from gardener.watch.snapshot import WatchedRequest
from gardener.watch.status import MovingSegment

LATELY = 3.0
"""Seconds over which times are averaged."""

RECENT = 8
"""The number of segments that say how long one takes now."""


class Pace(NamedTuple):
    """Mean seconds of a segment lately, for each stage but for `flight`.

    `flight` is the time from sending to verdict, `spent` the time at a stage; both are those of the
    most recent segments. `busy` is the share of time that each stage computed.
    """

    flight: float = 0.0
    spent: tuple[float, ...] = ()
    wait: tuple[float, ...] = ()
    compute: tuple[float, ...] = ()
    busy: tuple[float, ...] = ()


class PaceMeter:
    """Measures the pace of one request's segments by their verdicts."""

    def __init__(self) -> None:
        self._verdicts: deque[Record] = deque()
        self._since = math.inf  # when the first segment was sent, or the first token emitted
        self._first_token = math.inf

    def read(self, record: Record) -> None:
        """Take note of a record."""
        self._since = min(self._since, record.at)
        if record.what == "emitted":
            self._first_token = min(self._first_token, record.at)
        elif record.what == "judged":
            if self._since < self._first_token < math.inf:
                self._since = self._first_token
                self._verdicts.clear()  # the prefill is another kind of work
            self._verdicts.append(record)

    def pace(self, now: float) -> Pace:
        """The pace of the last seconds, or of the most recent segments if there were none."""
        verdicts = self._verdicts
        while len(verdicts) > RECENT and verdicts[0].at < now - LATELY:
            verdicts.popleft()
        if not verdicts:
            return Pace()
        recent = list(verdicts)[-RECENT:]
        spent = tuple(map(sum, zip(*_means(recent), strict=True)))
        wait, compute = _means(verdicts)
        count = sum(each.at > now - LATELY for each in verdicts)
        span = min(LATELY, now - self._since)
        flight = sum(each.seconds for each in recent) / len(recent)
        busy = tuple(min(each * count / span, 1.0) if span > 0 else 0.0 for each in compute)
        return Pace(flight, spent, wait, compute, busy)


def _means(verdicts: Collection[Record]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean seconds that a segment waited at each stage, and that it was computed."""
    times = zip(*(each.items for each in verdicts), strict=False)
    means = tuple(sum(each) / len(verdicts) / 1e6 for each in times)
    return means[::2], means[1::2]


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
