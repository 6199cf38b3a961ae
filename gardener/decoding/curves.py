"""Seconds as functions: of the rows of a pass, and of the bytes that cross a link."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

FEW, FEWEST, HALF = 8, 4, 0.5
"""Looked at is a pass of `FEW` rows, or else the largest of at least `FEWEST`: each row after the
first should add less than the share `HALF` of what the first takes. Two rows would not tell: the
second one may be what makes a pass slow."""


def steep(points: Sequence[tuple[int, float]]) -> str:
    """Where rows gain nothing by company, what to do about it; else "". Points are rows, ascending,
    with their times in any unit."""
    if not points:
        return ""
    first, least = points[0]
    few, some = max(point for point in points if point[0] <= max(FEW, first))
    if few < FEWEST * first or not least or some - least <= HALF * least * (few / first - 1):
        return ""
    return (
        f"{few} rows take {some / least:.1f} times as long as {first}, so that guesses hardly pay: "
        "another --dtype for the stages may do better"
    )


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds as a function of rows, from (rows, seconds) in ascending order of rows.

    Noise makes a measured time longer, never shorter: where more rows took less time, that holds
    for fewer rows too, so that a curve never decreases.
    """

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        """Raises ValueError for points that are no curve."""
        rows = [point[0] for point in self.points]
        if not rows or rows[0] < 1 or rows != sorted(set(rows)):
            raise ValueError(f"a curve needs ascending rows from 1, got {rows}")
        if not all(0 <= seconds < inf for _, seconds in self.points):
            raise ValueError(f"a curve of times that are none: {self.points}")
        least = inf
        falling = [(r, least := min(least, seconds)) for r, seconds in reversed(self.points)]
        object.__setattr__(self, "points", tuple(reversed(falling)))

    def __call__(self, rows: int) -> float:
        """Linear between the points, flat below them, the last slope beyond; 0 for no rows."""
        if rows <= 0:
            return 0.0
        points = self.points
        at = bisect_right(points, (rows, inf))
        if at == 0 or len(points) == 1:
            return points[0][1]
        at = min(at, len(points) - 1)
        (x0, y0), (x1, y1) = points[at - 1], points[at]
        seconds = y0 + (y1 - y0) * ((rows - x0) / (x1 - x0))
        # Rounding must not make it decrease.
        return max(seconds, y1) if rows >= x1 else min(max(seconds, y0), y1)

    def scaled(self, factor: float) -> "Curve":
        return Curve(tuple((rows, seconds * factor) for rows, seconds in self.points))


@dataclass(frozen=True, slots=True)
class Hop:
    """A link: one-way delay in seconds, and bytes/s (infinite where unknown)."""

    delay: float = 0.0
    bandwidth: float = inf

    def __call__(self, size: int) -> float:
        """Seconds until `size` bytes have arrived."""
        return self.delay + self.busy(size)

    def busy(self, size: int) -> float:
        """Seconds for which `size` bytes keep the link from sending anything else."""
        return size / self.bandwidth
