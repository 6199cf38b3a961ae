"""How the stages fare, by the verdicts on the segments of all requests."""

import math
from collections import deque
from collections.abc import Collection, Iterable
from typing import NamedTuple

from gardener.runtime.trace import Record

LATELY = 3.0
"""Seconds over which times are averaged."""

RECENT = 8
"""The fewest segments that say how long one takes, however old they are."""

TOGETHER = 0.002
"""Seconds between the verdicts on segments that one pass computed, at most."""


class StageTimes(NamedTuple):
    """For each stage: mean seconds that a segment waited there lately, and that it was computed;
    and the share of the last seconds in which the stage computed."""

    wait: tuple[float, ...] = ()
    compute: tuple[float, ...] = ()
    busy: tuple[float, ...] = ()


class StageMeter:
    """Fed with the trace of all requests, in order."""

    def __init__(self) -> None:
        self._verdicts: deque[Record] = deque()
        self._passes: deque[tuple[float, tuple[int, ...]]] = deque()  # when, and microseconds
        self._since = math.inf  # when the ring began to work, after it had nothing to do
        self._last = -math.inf  # when the newest record was made

    def read(self, records: Iterable[Record]) -> None:
        """Take note of records."""
        for record in records:
            if record.at - self._last > LATELY:
                self._since = record.at
            self._last = record.at
            if record.what == "judged":
                self._passes.append((record.at, self._passed(record)))
                self._verdicts.append(record)

    def _passed(self, verdict: Record) -> tuple[int, ...]:
        """Microseconds that each stage computed for it. Segments that a stage computed in one pass
        tell of the same one, so it is counted once."""
        before: tuple[int, ...] = ()
        if self._verdicts and verdict.at - self._verdicts[-1].at < TOGETHER:
            before = self._verdicts[-1].items[1::2]
        compute = verdict.items[1::2]
        before += (0,) * (len(compute) - len(before))
        return tuple(0 if a == b else a for a, b in zip(compute, before, strict=False))

    def times(self, now: float, works: bool) -> StageTimes:
        """Of the last seconds, or of the latest segments if there were none. `works`: something
        runs; else no stage is busy."""
        verdicts, passes = self._verdicts, self._passes
        while len(verdicts) > RECENT and verdicts[0].at < now - LATELY:
            verdicts.popleft()
        while passes and passes[0][0] <= now - LATELY:
            passes.popleft()
        if not verdicts:
            return StageTimes()
        wait, compute = means(verdicts)
        span = min(LATELY, now - self._since)
        if not works or span <= 0:
            return StageTimes(wait, compute, (0.0,) * len(compute))
        sums = [sum(each) / 1e6 for each in zip(*(one for _, one in passes), strict=False)]
        sums += [0.0] * (len(compute) - len(sums))
        return StageTimes(wait, compute, tuple(min(each / span, 1.0) for each in sums))


def means(verdicts: Collection[Record]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean seconds that a segment waited at each stage, and that it was computed."""
    times = zip(*(each.items for each in verdicts), strict=False)
    found = tuple(sum(each) / len(verdicts) / 1e6 for each in times)
    return found[::2], found[1::2]
