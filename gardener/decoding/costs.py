"""What a pass takes, by its rows: measured when the ring closes, then kept current by what is seen.

Everything that decides sizes asks here. Each stage has a *curve*, seconds by rows, which it has
measured when it started, and a *level*, a factor that follows what its passes take now. So the
shape stays (a busy ring shows few sizes) while the level is today's. All times are in seconds.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from gardener.decoding.averages import SURE, Level, Line, Mean
from gardener.protocol.messages import ITEM_SIZE, Card, Timing

SHORT = 16
"""Tokens of the settled text behind a short measurement."""

LONG = 1024
"""And behind a long one, where a card does not say."""

GUESS = 0.01
"""Seconds that a pass of a stage takes that has not measured itself, before it has been seen."""

ROW = 16
"""Bytes of a row's id, parent, position and token on the wire, about."""

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Rows for which reports say what they cost."""

FEW, FEWEST, HALF = 8, 4, 0.5
"""Of so many rows, or at least so many, each one after the first should add less than this share of
what the first one takes. Two rows would not tell: the second one may be what makes a pass slow."""


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


@dataclass(slots=True)
class _Stage:
    """One stage: the curve at a short context, what is added up to the long one, the level."""

    short: Curve
    added: Curve | None
    span: int  # tokens between the two contexts
    level: Level

    def at(self, context: int) -> Curve:
        """What holds now, with so many tokens in the text: attention is linear in these."""
        if self.added is None or context <= SHORT:
            return self.short.scaled(self.level.value)
        share = (context - SHORT) / self.span
        rows = sorted({r for curve in (self.short, self.added) for r, _ in curve.points})
        points = ((r, self.short(r) + share * self.added(r)) for r in rows)
        return Curve(tuple((r, seconds * self.level.value) for r, seconds in points))


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
        self._draft = Line()
        self._beyond = Mean()
        self._context = 0
        # Of now, made again when they are asked for. Policies ask for the same few often.
        self._curves: list[Curve] | None = None
        self._ticks: dict[int, float] = {}  # by rows
        self._circles: dict[int, float] = {}
        self._leads: dict[tuple[int, int], float] = {}

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
            self._forget()

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
        if rows not in self._ticks:
            links = zip(self.hops, self._bytes, strict=True)
            self._ticks[rows] = max(
                max(curve(rows) for curve in self.stages),
                max(hop.busy(rows * size) for hop, size in links),
            )
        return self._ticks[rows]

    def lead(self, rows: int, window: int) -> float:
        """Seconds from one segment of so many rows to the next, with at most `window` under way."""
        key = (rows, window)
        if key not in self._leads:
            self._leads[key] = max(self.tick(rows), self.round_trip(rows) / window)
        return self._leads[key]

    def round_trip(self, rows: int) -> float:
        """Seconds once round the ring: stages, links, and what else it was seen to take."""
        if rows not in self._circles:
            computing = sum(curve(rows) for curve in self.stages)
            beyond = max(self._links(rows) + self._beyond.value, 0.0)
            self._circles[rows] = computing + beyond
        return self._circles[rows]

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
        self._forget()

    def observe_stage(self, k: int, rows: int, seconds: float) -> None:
        """A pass of so many rows took stage k so long. Without rows or time it says nothing."""
        stage = self._stages[k]
        expected = self.stage(k, rows) / stage.level.value
        if rows > 0 and seconds > 0 and expected > 0:
            stage.level.observe(seconds / expected)
            if self._curves is not None:
                self._curves[k] = stage.at(self._context)
            self._forget()

    def _forget(self) -> None:
        self._ticks.clear()
        self._circles.clear()
        self._leads.clear()

    def observe_draft(self, nodes: int, seconds: float) -> None:
        """The slow drafter expanded so many nodes at once."""
        if nodes > 0 and seconds >= 0:
            self._draft.observe(nodes, seconds)

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
            "round_trip": [self.round_trip(rows) for rows in SIZES],
            "beyond": self._beyond.value,
            "draft": [self.draft(nodes) for nodes in SIZES],
        }


def _stage(short: Curve, far: tuple[int, Curve] | None, seen: int) -> _Stage:
    if far is None or far[0] <= SHORT:
        return _Stage(short, None, 1, Level(seen))
    context, long = far
    added = Curve(tuple((rows, max(y - short(rows), 0.0)) for rows, y in long.points))
    return _Stage(short, added, context - SHORT, Level(seen))


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
