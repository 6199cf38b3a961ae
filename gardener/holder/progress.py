"""How far the stages are with passes that take long, from what they say of them (`Busy`).

A verdict that does not come is no reason to give up as long as any stage gets further: that is what
tells one that is slow from one that is stuck.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from gardener.decoding.speculation import Speculation
from gardener.holder.advice import Advice
from gardener.holder.outage import STAGES_PRINTED, stalled
from gardener.protocol.reports import Busy

FRESH = 6.0
"""Seconds for which a report counts: stages that compute a long pass say so every two."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """The newest report of a stage, when it came, and since when the stage is at this place."""

    report: Busy
    at: float
    since: float

    @property
    def place(self) -> tuple[int, int, int]:
        return self.report.request, self.report.seq, self.report.layer


class Progress:
    """Of all stages of a ring. It is given the time."""

    def __init__(self) -> None:
        self.moved = -inf
        """When any stage was last seen to get further with a pass that takes long."""
        self._heard: dict[int, _Heard] = {}

    def heard(self, report: Busy, now: float) -> None:
        """A stage says where it is."""
        before = self._heard.get(report.stage)
        newest = _Heard(report, now, now)
        if before is not None and before.place == newest.place and now - before.at <= FRESH:
            newest = _Heard(report, now, before.since)
        else:
            self.moved = now
        self._heard[report.stage] = newest

    def stalled(
        self, speculation: Speculation, seconds: float, now: float, layers: int, advice: Advice
    ) -> str:
        """The sentence for a request for which no verdict came for so long, of a model with so many
        layers."""
        standing = self._standing(now)
        doing = ", ".join(_words(each, now, layers, advice) for each in standing)
        what_to_do = advice.about(standing[0].report.stage) if standing else STAGES_PRINTED
        return stalled(seconds, speculation, doing, what_to_do)

    def _standing(self, now: float) -> Sequence[_Heard]:
        """The stages that compute, the one that has been at its place for longest first."""
        fresh = [heard for heard in self._heard.values() if now - heard.at <= FRESH]
        return sorted(fresh, key=lambda heard: heard.since)


def _words(heard: _Heard, now: float, layers: int, advice: Advice) -> str:
    report = heard.report
    where = "the head" if report.layer >= layers else f"layer {report.layer} of {layers}"
    return (
        f"{advice.called(report.stage)} has computed segment {report.seq} for "
        f"{report.since / 1e6:.0f} s, and been in {where} for {now - heard.since:.0f} s"
    )
