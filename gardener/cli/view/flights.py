"""What is under way in the ring, and about where. Reads the trace and the sums of `StageTimes`."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from gardener.cli.view.holder import Moving
from gardener.decoding.speculation import Speculation
from gardener.decoding.stage_times import StageTimes
from gardener.runtime.trace import Record

LATELY = 3.0
"""Seconds over which times are averaged."""

FLIGHTS = 8
"""The last so many flights say how long one takes now: that changes with the rows in a segment."""


class Sent(NamedTuple):
    """A segment under way: when it was sent (monotonic seconds), and its ids."""

    at: float
    ids: tuple[int, ...]


class Pace(NamedTuple):
    """What a segment took lately. Mean seconds: the whole flight of the last few, what they spent
    at each stage, and over a longer time the wait and the compute at each stage; `busy`: the share
    of the time that each stage computed."""

    flight: float = 0.0
    spent: tuple[float, ...] = ()
    wait: tuple[float, ...] = ()
    compute: tuple[float, ...] = ()
    busy: tuple[float, ...] = ()


class _Sums(NamedTuple):
    """`StageTimes` at one moment; the difference of two is what happened between them."""

    at: float
    segments: int
    flight: float
    wait: tuple[float, ...]
    compute: tuple[float, ...]


def about(elapsed: float, flight: float, stages: Sequence[float]) -> tuple[int, float]:
    """About where a segment is that was sent `elapsed` seconds ago: stage (from 1), progress.

    flight: mean seconds from sending to verdict; stages: mean seconds at each stage. What is left
    of the flight is shared by the hops. A segment that is late is at the end of the last stage,
    and while nothing was measured yet, every segment is at the start of the first.
    """
    hop = max(flight - sum(stages), 0.0) / (len(stages) + 1)
    if flight <= 0 or not stages:
        return 1, 0.0
    for stage, seconds in enumerate(stages, 1):
        span = hop + seconds
        if elapsed < span:
            return stage, elapsed / span
        elapsed -= span
    return len(stages), 1.0


class Flights:
    """The segments of one request."""

    def __init__(self) -> None:
        self.flying: dict[int, Sent] = {}
        self._took: deque[float] = deque(maxlen=FLIGHTS)
        self._sums: deque[_Sums] = deque()

    def read(self, record: Record) -> None:
        if record.what == "sent":
            self.flying[record.seq] = Sent(record.at, record.items)
        elif record.what == "judged":
            self.flying.pop(record.seq, None)
            self._took.append(record.seconds)

    def oldest(self, now: float) -> tuple[int, float] | None:
        """The segment that has been under way longest, and how many seconds."""
        first = next(iter(self.flying.items()), None)
        return None if first is None else (first[0], now - first[1].at)

    def pace(self, stage_times: StageTimes, now: float) -> Pace:
        """Means over the last seconds; over the whole request while nothing happens."""
        sums = self._sums
        sums.append(
            _Sums(
                now,
                stage_times.segments,
                stage_times.flight,
                tuple(stage_times.wait),
                tuple(stage_times.compute),
            )
        )
        while len(sums) > 2 and sums[1].at < now - LATELY:
            sums.popleft()
        old, new = sums[0], sums[-1]
        flight = sum(self._took) / max(len(self._took), 1)
        if not new.segments:
            return Pace(flight)
        idle = new.segments == old.segments
        if idle or len(old.wait) < len(new.wait):
            zero = (0.0,) * len(new.wait)
            old = _Sums(old.at, 0, 0.0, zero, zero)
        count, span = new.segments - old.segments, 0.0 if idle else now - old.at
        wait = tuple((b - a) / count for a, b in zip(old.wait, new.wait, strict=True))
        compute = tuple((b - a) / count for a, b in zip(old.compute, new.compute, strict=True))
        usual = (new.flight - old.flight) / count
        scale = flight / usual if usual > 0 else 1.0
        return Pace(
            flight,
            tuple(scale * (a + b) for a, b in zip(wait, compute, strict=True)),
            wait,
            compute,
            tuple(min(each * count / span, 1.0) if span > 0 else 0.0 for each in compute),
        )

    def segments(self, decoding: Speculation, pace: Pace, stages: int, now: float) -> list[Moving]:
        """All that is under way, the oldest first."""
        spent = pace.spent or (pace.flight / max(stages, 1),) * stages
        return [
            _moving(seq, sent.ids, decoding, *about(now - sent.at, pace.flight, spent))
            for seq, sent in self.flying.items()
        ]


def _moving(
    seq: int, ids: Sequence[int], decoding: Speculation, stage: int, progress: float
) -> Moving:
    tree, prompt = decoding.tree, len(decoding.prompt) - 1
    chain = sum(node < prompt for node in ids)
    alive = sum(node in tree for node in ids)
    root = int(tree.root in ids)
    return Moving(seq, chain, root, alive - root, len(ids) - chain - alive, stage, progress)
