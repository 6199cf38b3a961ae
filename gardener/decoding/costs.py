"""What a pass takes, by its rows: measured when the ring closes, then kept current by what is seen.

Everything that decides sizes asks here. Each stage has a *curve*, seconds by rows, which it has
measured when it started, and a *level*, a factor that follows what its passes take now. So the
shape stays (a busy ring shows few sizes) while the level is today's. All times are in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from gardener.decoding.averages import SURE, Level, Line, Mean
from gardener.decoding.curves import Curve, Hop
from gardener.protocol.messages import Card, Timing
from gardener.protocol.tensors import ITEM_SIZE

SHORT = 16
"""Tokens of the settled text behind a short measurement."""

LONG = 1024
"""And behind a long one, where a card does not say."""

GUESS = 0.01
"""Seconds that a pass of a stage takes that has not measured itself, before it has been seen."""

ROW = 16
"""Bytes of a row's id, parent, position and token on the wire, about."""

NO_DELAY = Hop()
"""A link that takes no time."""

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Rows for which reports say what they cost."""


@dataclass(slots=True)
class _Stage:
    """One stage: the curve at a short context, what is added up to the long one, the level."""

    short: Curve
    added: Curve | None
    span: int  # tokens between the two contexts
    level: Level
    _parts: dict[int, tuple[float, float]] = field(default_factory=dict)  # of both, by rows

    def bare(self, rows: int, context: int) -> float:
        """Seconds without the level, for a text of this length: attention is linear in it."""
        parts = self._parts.get(rows)
        if parts is None:
            added = 0.0 if self.added is None else self.added(rows)
            parts = self._parts[rows] = (self.short(rows), added)
        return parts[0] + max(context - SHORT, 0) / self.span * parts[1]

    def seconds(self, rows: int, context: int) -> float:
        """What a pass of this many rows takes now."""
        return self.level.value * self.bare(rows, context)

    def curve(self, context: int) -> Curve:
        """The same for all rows."""
        curves = [self.short] if self.added is None else [self.short, self.added]
        rows = sorted({each for curve in curves for each, _ in curve.points})
        return Curve(tuple((each, self.seconds(each, context)) for each in rows))


@dataclass(slots=True)
class _Known:
    """What is known of a ring, whatever the length of a text. `version` counts what was seen."""

    stages: list[_Stage]
    hops: tuple[Hop, ...]
    bytes: tuple[int, ...]  # of a row on each hop
    draft: Line = field(default_factory=Line)
    beyond: Mean = field(default_factory=Mean)  # what a round trip takes besides
    drafts: dict[int, float] = field(default_factory=dict)  # what `draft` says now, by nodes
    links: dict[int, tuple[float, float]] = field(default_factory=dict)  # see `_links`, by rows
    version: int = 0


class Costs:
    """What a holder knows of the time that its ring takes, for a text of one length.

    `at` answers for another length; what one of them observes, all of a ring know. Stages count
    from 0 here, hops too: hop k leads into stage k, the last one back to the holder.
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
        hops = tuple(hops) or (Hop(),) * (count + 1)
        sizes = tuple(row_bytes) or (0,) * (count + 1)
        if not len(hops) == len(sizes) == count + 1:
            raise ValueError(f"{count} stages, {len(hops)} hops, {len(sizes)} sizes")
        given = tuple(long) or (None,) * count
        seen = SURE if measured else 0
        stages = [_stage(curve, far, seen) for curve, far in zip(curves, given, strict=True)]
        self._begin(_Known(stages, hops, sizes), 0)

    def _begin(self, known: _Known, context: int) -> None:
        self._known, self.context = known, context
        self._version = known.version  # of what was seen when these were made:
        self._kept: dict[int, tuple[float, float]] = {}

    def at(self, context: int) -> "Costs":
        """The same ring for a text of `context` tokens, prompt and answer together."""
        if context == self.context:
            return self
        other = object.__new__(Costs)
        other._begin(self._known, context)
        return other

    @classmethod
    def flat(
        cls, stages: int, seconds: float = GUESS, *, hop: Hop = NO_DELAY, draft: float = 0.0
    ) -> "Costs":
        """Stages for which a pass takes the same time, whatever its rows: for tests, and where
        nothing better is known. `draft`: seconds of an expansion, whatever its nodes."""
        hops = (hop,) * (stages + 1)
        costs = cls([Curve(((1, seconds),))] * stages, hops, measured=False)
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
        for card, stage in zip(stages, costs._known.stages, strict=True):
            if not card.costs:
                stage.level.seen = 0
        return costs

    # --- what is known -----------------------------------------------------------------------

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The links."""
        return self._known.hops

    @property
    def count(self) -> int:
        """How many stages there are."""
        return len(self._known.stages)

    @property
    def stages(self) -> list[Curve]:
        """Their curves as they are now."""
        return [stage.curve(self.context) for stage in self._known.stages]

    def stage(self, k: int, rows: int) -> float:
        """Seconds that stage k computes."""
        return self._known.stages[k].seconds(rows, self.context)

    def link(self, k: int, rows: int) -> float:
        """Seconds from the end of hop k to the other."""
        return self.hops[k](rows * self._known.bytes[k])

    def tick(self, rows: int) -> float:
        """Seconds of the slowest stage or link: how often a segment of this many rows can pass."""
        return self._tick_and_round_trip(rows)[0]

    def round_trip(self, rows: int) -> float:
        """Seconds once round the ring: stages, links, and what else it was seen to take."""
        return self._tick_and_round_trip(rows)[1]

    def lead(self, rows: int, window: int) -> float:
        """Seconds from a segment of `rows` to the next, with at most `window` under way."""
        tick, round_trip = self._tick_and_round_trip(rows)
        return max(tick, round_trip / window)

    def _tick_and_round_trip(self, rows: int) -> tuple[float, float]:
        """Tick and round trip. Policies ask for the same few often, so they are kept until
        something else is seen."""
        if self._version != self._known.version:
            self._version = self._known.version
            self._kept.clear()
        found = self._kept.get(rows)
        if found is None:
            computing = [stage.seconds(rows, self.context) for stage in self._known.stages]
            links, busy = self._links(rows)
            beyond = max(links + self._known.beyond.value, 0.0)
            found = self._kept[rows] = (max(*computing, busy), sum(computing) + beyond)
        return found

    def draft(self, nodes: int) -> float:
        """Seconds that the slow drafter takes to expand this many nodes at once; 0 if none was
        seen to."""
        drafts, line = self._known.drafts, self._known.draft
        if nodes not in drafts:
            drafts[nodes] = line(nodes) if nodes > 0 and line.seen else 0.0
        return drafts[nodes]

    def _links(self, rows: int) -> tuple[float, float]:
        """Seconds over all links, and those for which the slowest one is busy."""
        links = self._known.links
        if rows not in links:
            hops = zip(self.hops, self._known.bytes, strict=True)
            busy = max(hop.busy(rows * size) for hop, size in hops)
            links[rows] = sum(self.link(k, rows) for k in range(len(self.hops))), busy
        return links[rows]

    # --- what is seen ------------------------------------------------------------------------

    def observe(self, rows: int, seconds: float, times: Sequence[Timing]) -> None:
        """A segment of this many rows came back after `seconds`; these are its stages' times. One
        that lost all its rows on the way tells of the stages that it passed before."""
        for k, timing in enumerate(times[: self.count]):
            self.observe_stage(k, timing.rows, timing.compute / 1e6)
        if not all(timing.rows for timing in times):
            return
        spent = sum([timing.wait + timing.compute for timing in times]) / 1e6
        self._known.beyond.observe(seconds - spent - self._links(rows)[0])
        self._known.version += 1

    def observe_stage(self, k: int, rows: int, seconds: float) -> None:
        """A pass of this many rows took stage k so long. Without rows or time it says nothing."""
        stage = self._known.stages[k]
        expected = stage.bare(rows, self.context)
        if rows > 0 and seconds > 0 and expected > 0:
            stage.level.observe(seconds / expected)
            self._known.version += 1

    def observe_draft(self, nodes: int, seconds: float) -> None:
        """The slow drafter expanded this many nodes at once."""
        if nodes > 0 and seconds >= 0:
            self._known.draft.observe(nodes, seconds)
            self._known.drafts.clear()

    # --- reports -----------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """What is known now, for reports: plain values, times in seconds."""
        return {
            "context": self.context,
            "rows": list(SIZES),
            "stages": [[curve(rows) for rows in SIZES] for curve in self.stages],
            "levels": [stage.level.value for stage in self._known.stages],
            "links": [
                {
                    "delay": hop.delay,
                    "bytes_per_second": hop.bandwidth if hop.bandwidth < inf else None,
                    "bytes_per_row": size,
                }
                for hop, size in zip(self.hops, self._known.bytes, strict=True)
            ],
            "tick": [self.tick(rows) for rows in SIZES],
            "round_trip": [self.round_trip(rows) for rows in SIZES],
            "beyond": self._known.beyond.value,
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
