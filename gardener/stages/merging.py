"""Whether waiting segments of one request are computed in one pass, or one after the other.

Segments are sent apart so that stages work at the same time. In one pass they leave a stage
together, and the stages after it wait for them together: a pipeline becomes a single large step.
That ends sooner only where more rows hardly take longer. Segments of different requests do not
wait for each other and are always merged.
"""

from dataclasses import dataclass
from math import ceil

from gardener.decoding.curves import Curve
from gardener.protocol.messages import Card


@dataclass(frozen=True)
class Merging:
    """Decides by what passes take. `ahead`: stages from this one to the end of the ring, this one
    counted, each of which is taken to be like this one."""

    seconds: Curve | None
    ahead: int = 1

    @classmethod
    def of(cls, card: Card) -> "Merging":
        """From what a stage says about itself. One that has not measured itself merges nothing."""
        points = tuple((rows, micros / 1e6) for rows, micros in card.costs)
        held = max(card.end - card.first, 1)
        return cls(Curve(points) if points else None, ceil((card.layers - card.first) / held))

    def pays(self, segments: int, rows: int, more: int) -> bool:
        """Should a segment of `more` rows join a pass of so many segments with `rows` rows?

        It should if the segments leave the ring sooner, in the mean: in one pass all leave after
        `ahead` times what it takes; apart, the first ones as if alone, and the last one a pass
        later at the slower of the two paces.
        """
        if self.seconds is None:
            return False
        first, last, both = self.seconds(rows), self.seconds(more), self.seconds(rows + more)
        apart = segments * self.ahead * first + first + last + (self.ahead - 1) * max(first, last)
        return (segments + 1) * self.ahead * both < apart


APART = Merging(None)
"""Merges nothing."""
