"""Which layers each stage of a ring should hold, by what each has measured on its own machine.

A card says what a row alone takes in one layer and in the head. The order of the stages stays as it
is: only the last one has the head, and nobody else has measured it. Layers count as equally long,
as the mean over those that a stage holds now. Segments of several rows take longer, but about by
the same factor everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, ValidationError, convert, to_builtins

from gardener.decoding.costs import Costs
from gardener.errors import UserError
from gardener.model.checkpoint.slices import Slice, even_cut
from gardener.protocol.messages import Card
from gardener.runtime.wording import bare_span

NANO = 1e6
"""Nanoseconds in a millisecond."""

SHARE = 0.5
"""Of the memory for keys and values, what more layers may take."""

Count = Annotated[int, Meta(ge=0, le=2**31)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]
DType = Literal["float32", "bfloat16", "float16"]
Quant = Literal["none", "int4", "int8", "nf4", "fp4", "llm-int8"]
HeadQuant = Literal["auto", "none", "int4", "int8"]
"""What goes into lines to be pasted is one of these, whoever wrote the file or the card."""


class MeasuredStage(Struct, frozen=True, forbid_unknown_fields=True):
    """A stage as it is: layers [first, end), milliseconds of a row alone in one of them and in the
    head (0: it is not here), and how many layers its memory takes (None: not known)."""

    name: str
    first: Count
    end: Count
    layer_ms: Annotated[float, Meta(ge=1 / NANO, le=1e9)]
    head_ms: Milliseconds = 0.0
    most: Annotated[int, Meta(ge=1)] | None = None

    @property
    def ms(self) -> float:
        """Milliseconds of a row alone now."""
        return (self.end - self.first) * self.layer_ms + self.head_ms


class MeasuredRing(Struct, frozen=True, forbid_unknown_fields=True):
    """What the stages of a ring have measured, in their order. `layers` of the whole model, whose
    fingerprint is `model`; `links_ms`: what a row takes on all links together."""

    layers: Count
    model: str
    stages: Annotated[tuple[MeasuredStage, ...], Meta(min_length=1)]
    dtype: DType = "float32"
    quant: Quant = "none"
    quant_head: HeadQuant = "auto"
    links_ms: Milliseconds = 0.0

    def __post_init__(self) -> None:
        at = 0
        for number, stage in enumerate(self.stages, 1):
            if not stage.first == at < stage.end:
                raise ValueError(
                    f"stage {number} holds layers {stage.first} to {stage.end}, and should begin "
                    f"with layer {at}"
                )
            at = stage.end
        if at != self.layers:
            raise ValueError(f"the stages hold {at} layers of {self.layers}")
        if not self.stages[-1].head_ms:
            raise ValueError("the last stage, which has the head, says no `head_ms`")


@dataclass(frozen=True)
class Balance:
    """A ring as it is, and the cut that makes its slowest stage fastest."""

    ring: MeasuredRing
    cut: Sequence[Slice]

    @property
    def now(self) -> list[float]:
        """Milliseconds of a row alone at each stage."""
        return [stage.ms for stage in self.ring.stages]

    @property
    def then(self) -> list[float]:
        """The same after the new cut."""
        pairs = zip(self.ring.stages, self.cut, strict=True)
        return [(held.end - held.first) * stage.layer_ms + stage.head_ms for stage, held in pairs]

    @property
    def changes(self) -> bool:
        """Whether any stage should hold other layers than it does."""
        ends = [stage.end for stage in self.ring.stages]
        return ends != [held.end for held in self.cut]

    def plain(self, stages: Sequence[float]) -> float:
        """Milliseconds of a token without guesses, where stages take these."""
        return sum(stages) + self.ring.links_ms

    def facts(self) -> dict[str, Any]:
        """For reports: what was measured, and what follows from it."""
        return {
            "measured": to_builtins(self.ring),
            "cut": [bare_span(held.first, held.end) for held in self.cut],
            "stage_ms": {"now": self.now, "then": self.then},
            "plain_ms": {"now": self.plain(self.now), "then": self.plain(self.then)},
        }


def balanced(ring: MeasuredRing) -> Balance:
    """The ring with its best cut, in which every stage has a layer at least. Raises UserError if
    there is none."""
    return Balance(ring, best_cut(ring.stages, ring.layers))


def best_cut(stages: Sequence[MeasuredStage], layers: int) -> list[Slice]:
    """The cut of so many layers into these stages whose slowest one is fastest, whatever they hold
    now. Raises UserError if they cannot hold them all."""
    return even_cut(
        [1] * layers,
        round(stages[-1].head_ms * NANO),
        len(stages),
        factors=[max(round(stage.layer_ms * NANO), 1) for stage in stages],
        most=[stage.most or layers for stage in stages],
    )


def measured_ring(cards: Sequence[Card]) -> MeasuredRing:
    """What the cards of a ring say; the holder's own, with its link, stands in front. Raises
    UserError if a stage has not measured itself."""
    stages = cards[1:]
    for card in stages:
        if not card.layer or (card is stages[-1] and not card.head):
            raise UserError(
                f"stage {card.stage} ({card.name}) has not measured what a layer or the head takes "
                "there: start it anew"
            )
    costs = Costs.of(cards)
    # Embedding and head, which two stages have besides, are in the mean: so the least one counts.
    weights = min(card.memory / (card.end - card.first) for card in stages)
    found = {
        "layers": stages[0].layers,
        "model": stages[0].model,
        "stages": [_measured(card, weights) for card in stages],
        "dtype": stages[0].dtype,
        "quant": stages[0].quant,
        "quant_head": stages[0].head_quant,
        "links_ms": sum(costs.link(hop, 1) for hop in range(len(stages) + 1)) * 1e3,
    }
    try:
        return convert(found, MeasuredRing)
    except ValidationError as error:
        raise UserError(f"the cards of the stages make no ring to be cut: {error}") from error


def _measured(card: Card, weights: float) -> MeasuredStage:
    return MeasuredStage(
        card.name,
        card.first,
        card.end,
        card.layer / NANO,
        card.head / NANO,
        most_layers(card, weights),
    )


def most_layers(card: Card, weights: float) -> int | None:
    """How many layers of so many bytes the memory of a stage takes; None: it is not known.

    A stage says what it has set aside for keys and values. `SHARE` of that may be given up.
    """
    if not card.kv_room or not weights:
        return None
    more = int(SHARE * card.kv_room / weights)
    return min(card.end - card.first + more, card.layers)
