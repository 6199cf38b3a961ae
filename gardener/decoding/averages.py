"""Running averages that keep up with what is seen and are not led astray by one observation."""

from dataclasses import dataclass
from math import exp, log

RATE = 0.1
"""Weight of the newest observation in a running average."""

SURE = 8
"""Observations that a measured value counts for. With fewer, an average takes all that comes."""

OUTLIER = 2.0
"""The factor by which one observation may exceed, or fall short of, what was expected."""

FAR = 4.0
"""The same for an observation of either sign, in usual deviations."""


@dataclass(slots=True)
class Level:
    """Running factor between what is seen and what was expected; an average of logarithms, so that
    twice as slow and twice as fast weigh the same."""

    seen: int
    value: float = 1.0

    def observe(self, ratio: float) -> None:
        """`ratio`: seen over the bare expectation, without this factor."""
        step = log(ratio / self.value)
        if self.seen >= SURE:
            step = min(max(step, -log(OUTLIER)), log(OUTLIER))
        self.seen += 1
        self.value *= exp(step * max(RATE, 1 / self.seen))


@dataclass(slots=True)
class Line:
    """Running fit of seconds = level + slope * nodes, by least squares with fading memory.

    The slope is held towards 0: as long as all sizes seen are alike, they say nothing of it.
    """

    x: float = 0.0  # running means
    y: float = 0.0
    xx: float = 0.0  # running mean squares about these
    xy: float = 0.0
    seen: int = 0

    def observe(self, x: float, y: float) -> None:
        expected = self(x)
        if self.seen >= SURE and expected > 0:
            y = min(max(y, expected / OUTLIER), expected * OUTLIER)
        self.seen += 1
        share = max(RATE / 4, 1 / self.seen)  # slower than a level: two numbers are learned
        dx, dy = x - self.x, y - self.y
        self.x += share * dx
        self.y += share * dy
        self.xx = (1 - share) * (self.xx + share * dx * dx)
        self.xy = (1 - share) * (self.xy + share * dx * dy)

    @property
    def slope(self) -> float:
        """Seconds per node; never negative, and never so steep that the level would be."""
        return min(max(self.xy / (self.xx + 1.0), 0.0), self.y / self.x if self.x else 0.0)

    def __call__(self, x: float) -> float:
        return self.y + self.slope * (x - self.x)


@dataclass(slots=True)
class Mean:
    """Running average of what comes on top; may be negative where links were taken for slower."""

    value: float = 0.0
    spread: float = 0.0  # mean deviation: tells what is an outlier
    seen: int = 0

    def observe(self, value: float) -> None:
        step = value - self.value
        if self.seen >= SURE and self.spread > 0:
            bound = FAR * self.spread
            step = min(max(step, -bound), bound)
        self.seen += 1
        share = max(RATE, 1 / self.seen)
        self.spread += share * (abs(step) - self.spread)
        self.value += share * step
