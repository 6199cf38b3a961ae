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
from gardener.protocol.messages import ITEM_SIZE, Card, Timing

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

    def at(self, context: int) -> Curve:
        """What holds now, with so many tokens in the text: attention is linear in these."""
        if self.added is None or context <= SHORT:
            return self.short.scaled(self.level.value)
        share = (context - SHORT) / self.span
        rows = sorted({r for curve in (self.short, self.added) for r, _ in curve.points})
        points = ((r, self.short(r) + share * self.added(r)) for r in rows)
        return Curve(tuple((r, seconds * self.level.value) for r, seconds in points))


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
        # Of now, made again when they are asked for. Policies ask for the same few often.
        self._version = known.version
        self._curves: list[Curve] | None = None
        self._times: dict[int, list[float]] = {}  # by rows: of each stage
        self._ticks: dict[int, float] = {}
        self._round_trips: dict[int, float] = {}
        self._leads: dict[tuple[int, int], float] = {}

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
    def stages(self) -> list[Curve]:
        """The curves of now. Do not change the list."""
        self._keep_up()
        if self._curves is None:
            self._curves = [stage.at(self.context) for stage in self._known.stages]
        return self._curves

    def _keep_up(self) -> None:
        """Forget what was made before something was seen by another of this ring."""
        if self._version != self._known.version:
            self._version, self._curves = self._known.version, None
            self._forget()

    def _learned(self) -> None:
        """Something was seen, and the curves follow it already."""
        self._known.version += 1
        self._version = self._known.version
        self._forget()

    def _forget(self) -> None:
        self._times.clear()
        self._ticks.clear()
        self._round_trips.clear()
        self._leads.clear()

    def stage(self, k: int, rows: int) -> float:
        """Seconds that stage k computes."""
        return self.stages[k](rows)

    def link(self, k: int, rows: int) -> float:
        """Seconds from the end of hop k to the other."""
        return self.hops[k](rows * self._known.bytes[k])

    def tick(self, rows: int) -> float:
        """Seconds of the slowest stage or link: how often a segment of this many rows can pass."""
        self._keep_up()
        if rows not in self._ticks:
            self._ticks[rows] = max(*self._computing(rows), self._links(rows)[1])
        return self._ticks[rows]

    def lead(self, rows: int, window: int) -> float:
        """Seconds from a segment of `rows` to the next, with at most `window` under way."""
        self._keep_up()
        key = (rows, window)
        if key not in self._leads:
            self._leads[key] = max(self.tick(rows), self.round_trip(rows) / window)
        return self._leads[key]

    def round_trip(self, rows: int) -> float:
        """Seconds once round the ring: stages, links, and what else it was seen to take."""
        self._keep_up()
        if rows not in self._round_trips:
            beyond = max(self._links(rows)[0] + self._known.beyond.value, 0.0)
            self._round_trips[rows] = sum(self._computing(rows)) + beyond
        return self._round_trips[rows]

    def draft(self, nodes: int) -> float:
        """Seconds that the slow drafter takes to expand this many nodes at once; 0 if none was
        seen to."""
        drafts, line = self._known.drafts, self._known.draft
        if nodes not in drafts:
            drafts[nodes] = line(nodes) if nodes > 0 and line.seen else 0.0
        return drafts[nodes]

    def _computing(self, rows: int) -> list[float]:
        """Seconds that each stage computes."""
        if rows not in self._times:
            self._times[rows] = [curve(rows) for curve in self.stages]
        return self._times[rows]

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
        for k, timing in enumerate(times[: len(self._known.stages)]):
            self.observe_stage(k, timing.rows, timing.compute / 1e6)
        if not all(timing.rows for timing in times):
            return
        spent = sum(timing.wait + timing.compute for timing in times) / 1e6
        self._known.beyond.observe(seconds - spent - self._links(rows)[0])
        self._learned()

    def observe_stage(self, k: int, rows: int, seconds: float) -> None:
        """A pass of this many rows took stage k so long. Without rows or time it says nothing."""
        stage = self._known.stages[k]
        expected = self.stage(k, rows) / stage.level.value
        if rows > 0 and seconds > 0 and expected > 0:
            stage.level.observe(seconds / expected)
            self.stages[k] = stage.at(self.context)
            self._learned()

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
