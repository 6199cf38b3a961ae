"""Where the time of a request went, as the verdicts tell."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gardener.protocol.messages import Timing


@dataclass(slots=True)
class StageTimes:
    """What the verdicts said about the time that segments took, summed per stage, in seconds.

    Only of segments judged after the first token: the prefill is another kind of work.
    """

    wait: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)
    flight: float = 0.0  # from sending to verdict, summed over segments
    segments: int = 0

    def add(self, times: Sequence[Timing], seconds: float) -> None:
        for sums in (self.wait, self.compute):
            sums.extend([0.0] * (len(times) - len(sums)))
        for stage, timing in enumerate(times):
            self.wait[stage] += timing.wait / 1e6
            self.compute[stage] += timing.compute / 1e6
        self.flight += seconds
        self.segments += 1
