"""What a ring has done since it was opened: sums that only grow, for who looks in now and then."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from gardener.decoding.limits import Counts
from gardener.protocol.messages import Timing

MICROSECOND = 1e-6


@dataclass(slots=True)
class Totals:
    """Over all requests of a ring.

    counts    of those that have ended
    verdicts  that came back
    runs      how many of these accepted so many guesses at once
    compute   for each stage the seconds of its passes, as the verdicts told. Segments that come
              back together and tell of the same pass at a stage count once there
    wait      for each stage the seconds for which segments waited there
    breaks    how often the ring broke
    """

    counts: Counts = field(default_factory=Counts)
    verdicts: int = 0
    breaks: int = 0
    runs: Counter[int] = field(default_factory=Counter)
    _compute: list[int] = field(default_factory=list)  # microseconds
    _wait: list[int] = field(default_factory=list)
    _before: Sequence[Timing] = ()  # of the verdict with which the next one comes together
    _busy: float = 0.0  # seconds until `_since`
    _since: float | None = None  # from when on a request runs

    @property
    def compute(self) -> list[float]:
        """See above."""
        return [each * MICROSECOND for each in self._compute]

    @property
    def wait(self) -> list[float]:
        """See above."""
        return [each * MICROSECOND for each in self._wait]

    def busy(self, now: float) -> float:
        """Seconds in which a request ran, until `now`."""
        return self._busy + (0.0 if self._since is None else max(now - self._since, 0.0))

    def bubbles(self, now: float) -> float | None:
        """Share of the time in which a request ran, until `now`, in which the stage that computed
        most stood idle; None: none ran yet."""
        busy = self.busy(now)
        return max(1.0 - max(self.compute, default=0.0) / busy, 0.0) if busy else None

    def runs_from(self, now: float) -> None:
        """A request runs, maybe beside others."""
        if self._since is None:
            self._since = now

    def rests_from(self, now: float) -> None:
        """None does any more."""
        self._busy, self._since = self.busy(now), None

    def judged(self, times: Sequence[Timing], more: bool, accepted: int) -> None:
        """A verdict came that accepted so many guesses. `more`: the next one belongs to it."""
        self.verdicts += 1
        self.runs[accepted] += 1
        missing = len(times) - len(self._compute)
        if missing > 0:
            self._compute += [0] * missing
            self._wait += [0] * missing
        before = self._before
        for stage, timing in enumerate(times):
            self._wait[stage] += timing.wait
            if not (before and _same(before, stage, timing)):
                self._compute[stage] += timing.compute
        self._before = times if more else ()

    def add(self, other: "Totals", now: float) -> None:
        """Count what another ring has done, too, until `now`."""
        self.counts.add(other.counts)
        self.verdicts += other.verdicts
        self.breaks += other.breaks
        self._busy += other.busy(now)
        self.runs.update(other.runs.copy())
        self._compute = _sums(self._compute, other._compute)
        self._wait = _sums(self._wait, other._wait)


def _same(before: Sequence[Timing], stage: int, timing: Timing) -> bool:
    """Whether both tell of one pass."""
    if stage >= len(before):
        return False
    other = before[stage]
    return timing.compute > 0 and (timing.compute, timing.rows) == (other.compute, other.rows)


def _sums(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """Stage by stage; one of the two may know of more stages."""
    most = max(len(one), len(other))
    pad = [[*each, *[0] * (most - len(each))] for each in (one, other)]
    return [a + b for a, b in zip(*pad, strict=True)]
