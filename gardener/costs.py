"""What a pass takes, by its rows: measured when the ring closes, then kept current by what is seen.

Everything that decides sizes asks here. Each stage has a *curve*, seconds by rows, which it has
measured when it started, and a *level*, a factor that follows what its passes take now. So the
shape stays (a busy ring shows few sizes) while the level is today's. All times are in seconds.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log
from typing import Any

from gardener.messages import ITEM_SIZE, Card, Timing

SHORT = 16
"""Tokens of the settled text behind a short measurement."""

LONG = 1024
"""And behind a long one, where a card does not say."""

GUESS = 0.01
"""Seconds that a pass of a stage takes that has not measured itself, before it has been seen."""

RATE = 0.1
"""Weight of the newest observation in a running average."""

SURE = 8
"""Observations that a measured value counts for. With fewer, an average takes all that comes."""

OUTLIER = 2.0
"""One observation counts as at most so many times the expected value, or one part in so many."""

ROW = 16
"""Bytes of a row's id, parent, position and token on the wire, about."""

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Rows for which reports say what they cost."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds as a function of rows, from (rows, seconds) in ascending order of rows.

    Measured values are noisy: where more rows took less time, the longer time holds for both, so
    that a curve never decreases.
    """

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        """Raises ValueError for points that are no curve."""
        rows = [point[0] for point in self.points]
        if not rows or rows[0] < 1 or rows != sorted(set(rows)):
            raise ValueError(f"a curve needs ascending rows from 1, got {rows}")
        if not all(0 <= seconds < inf for _, seconds in self.points):
            raise ValueError(f"a curve of times that are none: {self.points}")
        top = 0.0
        rising = [(r, top := max(top, seconds)) for r, seconds in self.points]
        object.__setattr__(self, "points", tuple(rising))

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


@dataclass(slots=True)
class _Level:
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
class _Stage:
    """One stage: the curve at a short context, what is added up to the long one, the level."""

    short: Curve
    added: Curve | None
    span: int  # tokens between the two contexts
    level: _Level

    def at(self, context: int) -> Curve:
        """What holds now, with so many tokens in the text: attention is linear in these."""
        if self.added is None or context <= SHORT:
            return self.short.scaled(self.level.value)
        share = (context - SHORT) / self.span
        rows = sorted({r for curve in (self.short, self.added) for r, _ in curve.points})
        points = ((r, self.short(r) + share * self.added(r)) for r in rows)
        return Curve(tuple((r, seconds * self.level.value) for r, seconds in points))


@dataclass(slots=True)
class _Line:
    """Running fit of seconds = level + slope * nodes, by least squares with fading memory.

    The slope is held towards 0: as long as all sizes seen are alike, they say nothing of it.
    """

    weight: float = 0.0
    x: float = 0.0  # weighted means
    y: float = 0.0
    xx: float = 0.0  # weighted mean squares about these
    xy: float = 0.0
    seen: int = 0

    def observe(self, x: float, y: float) -> None:
        if self.seen >= SURE:
            expected = self(x)
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
class _Mean:
    """Running average of what comes on top; may be negative where links were taken for slower."""

    value: float = 0.0
    spread: float = 0.0  # mean deviation: tells what is an outlier
    seen: int = 0

    def observe(self, value: float) -> None:
        step = value - self.value
        if self.seen >= SURE:
            bound = 4 * self.spread
            step = min(max(step, -bound), bound)
        self.seen += 1
        share = max(RATE, 1 / self.seen)
        self.spread += share * (abs(value - self.value) - self.spread)
        self.value += share * step


class Costs:
    """What a holder knows of the time that its ring takes.

    Stages count from 0 here, hops too: hop k leads into stage k, the last one back to the holder.
    """

    def __init__(
        self,
        curves: Sequence[Curve],
        hops: Sequence[Hop] = (),
        row_bytes: Sequence[int] = (),
        *,
        long: Sequence[tuple[int, Curve] | None] = (),
        measured: bool = True,
    ) -> None:
        """
        curves     of the stages, at a short context
        hops       one more than stages; left out: links that take no time
        row_bytes  bytes of a row on each hop
        long       for each stage tokens of a long context and the curve there, where known
        measured   False: the curves are guesses, to be given up for the first thing that is seen
        """
        if not curves:
            raise ValueError("a ring without stages costs nothing")
        count = len(curves)
        self.hops = tuple(hops) or (Hop(),) * (count + 1)
        self._bytes = tuple(row_bytes) or (0,) * (count + 1)
        if not len(self.hops) == len(self._bytes) == count + 1:
            raise ValueError(f"{count} stages, {len(self.hops)} hops, {len(self._bytes)} sizes")
        given = tuple(long) or (None,) * count
        seen = SURE if measured else 0
        self._stages = [_stage(curve, far, seen) for curve, far in zip(curves, given, strict=True)]
        self._draft = _Line()
        self._beyond = _Mean()
        self._context = 0
        self._curves: list[Curve] | None = None  # of now; None: to be made again

    @classmethod
    def flat(
        cls, stages: int, seconds: float = GUESS, *, hop: Hop = Hop(), draft: float = 0.0
    ) -> "Costs":
        """Stages for which a pass takes the same time, whatever its rows: for tests, and where
        nothing better is known. `draft`: seconds of an expansion, whatever its nodes."""
        costs = cls([Curve(((1, seconds),))] * stages, (hop,) * (stages + 1), measured=False)
        if draft:
            costs.observe_draft(1, draft)
        return costs

    @classmethod
    def of(cls, cards: Sequence[Card], taps: Sequence[int] = ()) -> "Costs":
        """From the cards of a ring's stages, in order, with the holder's own before them if known;
        `taps` are the hidden states that its drafter asks for, see `messages.Open`."""
        holder = next((card for card in cards if card.stage == 0), None)
        stages = [card for card in cards if card.stage != 0]
        costs = cls(
            [_curve(card.costs) or Curve(((1, GUESS),)) for card in stages],
            [_hop(card) for card in (holder, *stages)],
            [ROW, *(_row_bytes(card, stages[-1] is card, taps) for card in stages)],
            long=[_long(card) for card in stages],
        )
        for card, stage in zip(stages, costs._stages, strict=True):
            if not card.costs:
                stage.level.seen = 0
        return costs

    # --- what is known -----------------------------------------------------------------------

    @property
    def context(self) -> int:
        """Tokens of the text so far; set it, and the curves are those of this context."""
        return self._context

    @context.setter
    def context(self, tokens: int) -> None:
        if tokens != self._context:
            self._context, self._curves = tokens, None

    @property
    def stages(self) -> list[Curve]:
        """The curves of now. Do not change the list."""
        if self._curves is None:
            self._curves = [stage.at(self._context) for stage in self._stages]
        return self._curves

    def stage(self, k: int, rows: int) -> float:
        """Seconds that stage k computes."""
        return self.stages[k](rows)

    def link(self, k: int, rows: int) -> float:
        """Seconds from the end of hop k to the other."""
        return self.hops[k](rows * self._bytes[k])

    def tick(self, rows: int) -> float:
        """Seconds of the slowest stage or link: how often a segment of so many rows can pass."""
        links = zip(self.hops, self._bytes, strict=True)
        return max(
            max(curve(rows) for curve in self.stages),
            max(hop.busy(rows * size) for hop, size in links),
        )

    def lead(self, rows: int) -> float:
        """Seconds between two segments of so many rows that keep the ring full without a queue."""
        return self.tick(rows)

    def circle(self, rows: int) -> float:
        """Seconds once round the ring: stages, links, and what else it was seen to take."""
        computing = sum(curve(rows) for curve in self.stages)
        return computing + max(self._links(rows) + self._beyond.value, 0.0)

    def draft(self, nodes: int) -> float:
        """Seconds that the slow drafter takes to expand so many nodes at once; 0 if none was
        seen to."""
        return self._draft(nodes) if nodes > 0 and self._draft.seen else 0.0

    def _links(self, rows: int) -> float:
        return sum(self.link(k, rows) for k in range(len(self.hops)))

    # --- what is seen ------------------------------------------------------------------------

    def observe(self, rows: int, seconds: float, times: Sequence[Timing]) -> None:
        """A segment of so many rows came back after `seconds`; these are its stages' times. One
        that lost all its rows on the way tells of the stages that it passed before."""
        for k, timing in enumerate(times[: len(self._stages)]):
            self.observe_stage(k, timing.rows, timing.compute / 1e6)
        if not all(timing.rows for timing in times):
            return
        spent = sum(timing.wait + timing.compute for timing in times) / 1e6
        self._beyond.observe(seconds - spent - self._links(rows))

    def observe_stage(self, k: int, rows: int, seconds: float) -> None:
        """A pass of so many rows took stage k so long. Without rows or time it says nothing."""
        stage = self._stages[k]
        expected = self.stage(k, rows) / stage.level.value
        if rows > 0 and seconds > 0 and expected > 0:
            stage.level.observe(seconds / expected)
            self._curves = None

    def observe_draft(self, nodes: int, seconds: float) -> None:
        """The slow drafter expanded so many nodes at once."""
        if nodes > 0 and seconds >= 0:
            self._draft.observe(nodes, seconds)

    def observe_circle(self, rows: int, seconds: float) -> None:
        """A segment of so many rows, alone in every pass, came back after `seconds`, not counting
        what it waited in queues."""
        computing = sum(curve(rows) for curve in self.stages)
        self._beyond.observe(seconds - computing - self._links(rows))

    # --- reports -----------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """What is known now, for reports: plain values, times in seconds."""
        return {
            "context": self._context,
            "rows": list(SIZES),
            "stages": [[curve(rows) for rows in SIZES] for curve in self.stages],
            "levels": [stage.level.value for stage in self._stages],
            "links": [
                {
                    "delay": hop.delay,
                    "bytes_per_second": hop.bandwidth if hop.bandwidth < inf else None,
                    "bytes_per_row": size,
                }
                for hop, size in zip(self.hops, self._bytes, strict=True)
            ],
            "tick": [self.tick(rows) for rows in SIZES],
            "circle": [self.circle(rows) for rows in SIZES],
            "beyond": self._beyond.value,
            "draft": [self.draft(nodes) for nodes in SIZES],
        }


def _stage(short: Curve, far: tuple[int, Curve] | None, seen: int) -> _Stage:
    if far is None or far[0] <= SHORT:
        return _Stage(short, None, 1, _Level(seen))
    context, long = far
    added = Curve(tuple((rows, max(y - short(rows), 0.0)) for rows, y in long.points))
    return _Stage(short, added, context - SHORT, _Level(seen))


def _curve(points: Sequence[tuple[int, int]]) -> Curve | None:
    """From rows and microseconds, as on a card."""
    return Curve(tuple((rows, micros / 1e6) for rows, micros in points)) if points else None


def _long(card: Card) -> tuple[int, Curve] | None:
    curve = _curve(card.long)
    return (card.context or LONG, curve) if curve and card.costs else None


def _hop(card: Card | None) -> Hop:
    return Hop(card.delay / 1e6, card.bandwidth or inf) if card else Hop()


def _row_bytes(card: Card, last: bool, taps: Sequence[int]) -> int:
    """Bytes of a row that leaves this stage: its hidden state (from the last one a pick instead)
    and the features that the stages up to this one have added."""
    tensors = len(taps) if last else 1 + sum(tap < card.end for tap in taps)
    return ROW + tensors * card.width * ITEM_SIZE.get(card.dtype, 0)
