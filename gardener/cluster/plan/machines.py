"""A ring as it is or could be: what its stages hold, and what everything in it takes.

What was not measured is reckoned from what was, and `Plan.assumed` says so: the passes of a stage
that holds other layers take longer or shorter by what a row alone takes there, whatever their rows;
a link that was never there is taken to be as slow as the slower one of those in its place; and a
machine that gets the head takes as much longer for it than the one that has it as for a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from msgspec import structs

from gardener.cluster.plan.balance import MeasuredRing, MeasuredStage, best_cut, measured_ring
from gardener.decoding.costs import Costs
from gardener.decoding.curves import Curve, Hop
from gardener.errors import UserError
from gardener.model.checkpoint.slices import Slice
from gardener.protocol.messages import Card
from gardener.protocol.tensors import ITEM_SIZE

HALF = 0.5
"""What a part takes that is twice as fast."""

WIDE = 4
"""Bytes of a number whose type crosses no link."""

LINKS, DRAFTER, HOLDER = "the links", "the drafter", "the holder"
"""Parts of a ring, as people call them, beside its stages."""


@dataclass(frozen=True)
class HolderTime:
    """Seconds of the holder's event loop: of each event, and of each node in it."""

    event: float = 0.0
    node: float = 0.0


@dataclass(frozen=True)
class Drift:
    """How a ring at work differs from what it had measured: by which factor the passes of each
    stage take longer, and the seconds that a round trip takes beside passes and links."""

    levels: tuple[float, ...]
    beyond: float


@dataclass(frozen=True)
class Machines:
    """A ring. All times but those of `ring` are in seconds.

    ring     its stages, in order, with the layers that they hold
    numbers  which stage each of them is in the ring that was measured, from 1
    curves   of a pass at each stage as it is here, by rows
    hops     one more than stages; the first leads into stage 1, the last back to the holder
    width    of a hidden state, and `row_bytes` what it takes on a link
    overhead  what a pass takes at a stage beside its curve
    draft    of a pass of the drafter that takes time, by rows; None: there is none
    """

    ring: MeasuredRing
    numbers: tuple[int, ...]
    curves: tuple[Curve, ...]
    hops: tuple[Hop, ...]
    width: int
    row_bytes: int
    overhead: float = 0.0
    draft: Curve | None = None
    holder: HolderTime = HolderTime()

    @classmethod
    def of(
        cls,
        cards: Sequence[Card],
        context: int,
        overhead: float = 0.0,
        draft: Curve | None = None,
        holder: HolderTime = HolderTime(),
    ) -> "Machines":
        """From the cards of a ring, the holder's in front, for texts of `context` tokens. Raises
        UserError if a stage has not measured itself."""
        ring, costs = measured_ring(cards), Costs.of(cards).at(context)
        numbers = tuple(range(1, len(ring.stages) + 1))
        width, item = cards[1].width, ITEM_SIZE.get(cards[1].dtype, WIDE)
        sizes, curves = (width, width * item), tuple(costs.stages)
        return cls(ring, numbers, curves, costs.hops, *sizes, overhead, draft, holder)

    @property
    def parts(self) -> list[str]:
        """What it consists of, as people call it."""
        stages = [named(number) for number in self.numbers]
        return [*stages, LINKS, *([DRAFTER] if self.draft else []), HOLDER]

    def best(self) -> "Machines":
        """The same with the layers shared so that the slowest stage is fastest; itself if they are
        so. Raises UserError if memory does not take them."""
        found = _laid(self.ring.stages, best_cut(self.ring.stages, self.ring.layers))
        if found == self.ring.stages:
            return self
        return replace(self, ring=_ring(self.ring, found), curves=self._curves(found))

    def without(self, number: int) -> "Machines":
        """The same ring without a stage, whose layers the others share at best. Raises UserError if
        it is the only one, or if the memory of the others does not take all layers."""
        at = self.numbers.index(number)
        kept = [place for place in range(len(self.numbers)) if place != at]
        if not kept:
            raise UserError("it is the only one")
        stages = [self.ring.stages[place] for place in kept]
        if at == len(self.numbers) - 1:
            stages[-1] = _with_head(stages[-1], self.ring.stages[at])
        found = _laid(stages, best_cut(stages, self.ring.layers))
        less = replace(
            self,
            numbers=tuple(self.numbers[place] for place in kept),
            curves=tuple(
                _scaled(self.curves[place], self.ring.stages[place], stage)
                for place, stage in zip(kept, found, strict=True)
            ),
            hops=(*self.hops[:at], _slower(*self.hops[at : at + 2]), *self.hops[at + 2 :]),
        )
        return replace(less, ring=_ring(self.ring, found, less.hops))

    def faster(self, part: str) -> "Machines":
        """The same with one of its parts twice as fast."""
        if part == LINKS:
            return replace(
                self, hops=tuple(Hop(hop.delay * HALF, hop.bandwidth / HALF) for hop in self.hops)
            )
        if part == DRAFTER and self.draft:
            return replace(self, draft=self.draft.scaled(HALF))
        if part == HOLDER:
            event, node = self.holder.event, self.holder.node
            return replace(self, holder=HolderTime(event * HALF, node * HALF))
        at = [named(number) for number in self.numbers].index(part)
        curves = enumerate(self.curves)
        return replace(
            self,
            curves=tuple(each.scaled(HALF) if place == at else each for place, each in curves),
        )

    def seen(self, drift: Drift) -> "Machines":
        """The same as it was seen at work."""
        pairs = zip(self.curves, drift.levels, strict=True)
        curves = tuple(curve.scaled(level) for curve, level in pairs)
        return replace(self, curves=curves, overhead=max(drift.beyond, 0.0) / len(curves))

    def links(self) -> list[tuple[str, float]]:
        """Each link by its two ends, with the seconds that a hidden state takes on it."""
        ends = ["holder", *(named(number) for number in self.numbers), "holder"]
        names = [f"{one} > {other}" for one, other in pairwise(ends)]
        return [(name, hop(self.row_bytes)) for name, hop in zip(names, self.hops, strict=True)]

    def _curves(self, stages: Sequence[MeasuredStage]) -> tuple[Curve, ...]:
        """Those of the same stages with these layers."""
        each = zip(self.curves, self.ring.stages, stages, strict=True)
        return tuple(_scaled(curve, was, now) for curve, was, now in each)


def named(number: int) -> str:
    """What people call a stage."""
    return f"stage {number}"


def _laid(stages: Sequence[MeasuredStage], cut: Sequence[Slice]) -> tuple[MeasuredStage, ...]:
    """These stages, which hold the parts of this cut."""
    pairs = zip(stages, cut, strict=True)
    return tuple(structs.replace(each, first=held.first, end=held.end) for each, held in pairs)


def _ring(
    ring: MeasuredRing, stages: Sequence[MeasuredStage], hops: Sequence[Hop] = ()
) -> MeasuredRing:
    """The ring with these stages, and with these links if they are others."""
    links = 1e3 * sum(hop.delay for hop in hops) if hops else ring.links_ms
    return structs.replace(ring, stages=tuple(stages), links_ms=links)


def _scaled(curve: Curve, was: MeasuredStage, now: MeasuredStage) -> Curve:
    """Seconds of its passes once a stage holds other layers."""
    return curve.scaled(now.ms / was.ms)


def _with_head(stage: MeasuredStage, last: MeasuredStage) -> MeasuredStage:
    """A stage that gets the head, which `last` has."""
    return structs.replace(stage, head_ms=last.head_ms * stage.layer_ms / last.layer_ms)


def _slower(one: Hop, other: Hop) -> Hop:
    """A link that nobody has measured, in the place of these two."""
    return Hop(max(one.delay, other.delay), min(one.bandwidth, other.bandwidth))
