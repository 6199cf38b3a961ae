"""What a cluster's file and the model's config tell of a ring that does not stand: who holds what,
and how much memory that takes. How fast the machines are, only they can say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gardener.cluster.places import Cluster, StagePlace
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.slices import Slice, parse_range
from gardener.model.quants import AUTO, QUANT_BYTES, of_head
from gardener.protocol.tensors import ITEM_SIZE
from gardener.runtime.wording import bare_span

KEPT = 4
"""Bytes of a number of keys and values on a CPU; elsewhere it is that of the dtype."""

CPU = "cpu"


@dataclass(frozen=True)
class Needs:
    """What a stage takes. Bytes of its weights, and of the keys and values of a token."""

    place: StagePlace
    held: Slice
    weights: int
    token: int

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "stage": self.place.number,
            "address": str(self.place.address),
            "layers": bare_span(self.held.first, self.held.end),
            "bytes": self.weights,
            "bytes_a_token": self.token,
        }


def needs(cluster: Cluster, shape: Architecture) -> list[Needs]:
    """Of all stages, with the layers that the file gives them, or an even share by size. Raises
    UserError for layers that the model does not have."""
    pairs = zip(cluster.stages, shares(cluster, shape), strict=True)
    return [_needs(place, held, shape) for place, held in pairs]


def shares(cluster: Cluster, shape: Architecture) -> Sequence[Slice]:
    """Which layers each stage holds: all have them in the file, or none. Raises UserError."""
    given = [stage.layers for stage in cluster.stages if stage.layers is not None]
    if given:
        return [parse_range(layers, shape.layers) for layers in given]
    first = cluster.stages[0]
    return shape.balance(len(cluster.stages), _known(first.quant), first.quant_head)


def _needs(place: StagePlace, held: Slice, shape: Architecture) -> Needs:
    item, quant = ITEM_SIZE[place.dtype], _known(place.quant)
    each = item if quant == "none" else QUANT_BYTES[quant]
    head = of_head(place.quant_head, quant)
    weights = each * sum(shape.held_weights(layer) for layer in range(held.first, held.end))
    matrix = shape.vocab * shape.width
    weights += item * matrix * held.is_first
    weights += (item if head == "none" else QUANT_BYTES[head]) * matrix * held.is_last
    kept = KEPT if place.device == CPU else item
    token = 2 * (held.end - held.first) * shape.kv_heads * shape.head_dim * kept
    return Needs(place, held, round(weights), token)


def _known(quant: str) -> str:
    """A kind; auto is one of 4 bits, whichever is fastest."""
    return "int4" if quant == AUTO else quant
