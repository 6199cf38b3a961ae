"""Which waiting segments are computed in one forward pass, and which one after the other.

Segments of one request are sent apart so that stages work at the same time. In one pass they leave
a stage together, and the stages after it wait for them together: a pipeline becomes a single large
step. That ends sooner only where more rows hardly take longer. Segments of different requests do
not wait for each other and always share a pass.
"""

from dataclasses import dataclass
from math import ceil

from gardener.decoding.curves import Curve
from gardener.protocol.messages import Card

MOST_ROWS = 512
"""Most rows that are computed together."""


@dataclass(frozen=True)
class BatchingPolicy:
    """Decides by the time that passes take.

    pass_seconds  of a pass, by its rows; None: not measured, so that segments of a request stay
                  apart
    stages_left   from this stage to the end of the ring, this one counted. Each of them is taken
                  to be like this one
    """

    pass_seconds: Curve | None
    stages_left: int = 1

    @classmethod
    def of(cls, card: Card) -> "BatchingPolicy":
        """From what a stage says about itself."""
        points = tuple((rows, micros / 1e6) for rows, micros in card.costs)
        held = max(card.end - card.first, 1)
        return cls(Curve(points) if points else None, ceil((card.layers - card.first) / held))

    def joins(self, segments: int, rows: int, more: int) -> bool:
        """Whether a segment of `more` rows joins a pass that has `rows` rows already, among them
        those of this number of `segments` of the same request."""
        if not rows or not more:
            return True
        if rows + more > MOST_ROWS:
            return False
        return not segments or self.pays(segments, rows, more)

    def pays(self, segments: int, rows: int, more: int) -> bool:
        """Whether these segments and one of `more` rows leave the ring sooner in one pass.

        What is compared is the mean over the segments. In one pass, all leave after `stages_left`
        times what it takes; apart, the first ones leave as if alone, and the last one a pass later
        at the slower of the two paces.
        """
        if self.pass_seconds is None:
            return False
        first, last = self.pass_seconds(rows), self.pass_seconds(more)
        both = self.pass_seconds(rows + more)
        left = self.stages_left
        apart = segments * left * first + first + last + (left - 1) * max(first, last)
        return (segments + 1) * left * both < apart


SEPARATE = BatchingPolicy(None)
"""Keeps the segments of a request apart."""
