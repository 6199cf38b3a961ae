"""The curves that stages have measured before they served, beside the passes of a ring that runs.

What was expected of a pass is what its stage's card says for as many rows, after a text of that
length, as the holder reckons it; without the factor by which the holder follows what it sees.
"""

import statistics
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.accelerator.rings import Pass
from gardener.decoding.costs import Costs
from gardener.protocol.messages import Card

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Passes are counted by the next of these."""

WITHIN = 0.15
"""How far what was measured may be from what is seen."""


@dataclass(frozen=True)
class Beside:
    """Passes of one policy at one stage, of up to `rows` rows and more than the size before. Times
    in milliseconds: the mean pass, the mean of what was expected of them. `middle`: the median of
    what a pass took, times what was expected of it."""

    policy: str
    stage: int
    rows: int
    passes: int
    seen_ms: float
    expected_ms: float
    middle: float

    @property
    def ratio(self) -> float:
        """Of the means."""
        return self.seen_ms / self.expected_ms

    @property
    def within(self) -> bool:
        """Whether it is as near as it should be, but for a few passes in which something else was
        done (a graph was captured, say)."""
        return abs(self.middle - 1) <= WITHIN


def beside(passes: Sequence[Pass], cards: Sequence[dict[str, Any]]) -> Iterator[Beside]:
    """By policy, stage and rows."""
    if not cards:
        return
    costs = Costs.of([Card(**card) for card in cards])
    groups: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    for each in passes:
        expected = costs.at(each.context).stage(each.stage, each.rows)
        size = SIZES[min(bisect_left(SIZES, each.rows), len(SIZES) - 1)]
        own = groups.setdefault((each.policy, each.stage, size), [])
        own.append((each.micros / 1e3, expected * 1e3))
    for (policy, stage, size), times in sorted(groups.items()):
        seen, expected = (statistics.fmean(each) for each in zip(*times, strict=True))
        middle = statistics.median(took / due for took, due in times if due)
        yield Beside(policy, stage + 1, size, len(times), seen, expected, middle)
