"""The real drafters, with a bill for every pass of their networks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gardener.decoding.curves import Curve
from gardener.draft.block import BlockNetwork
from gardener.draft.block_drafter import BlockDrafter
from gardener.draft.drafter import Drafter
from gardener.draft.incremental import Incremental
from gardener.draft.network import DraftNetwork, DraftRows
from gardener.errors import LocalError
from gardener.model.architecture import Architecture
from gardener.model.kv_cache import KVCache
from gardener.model.rotary import Rotary
from gardener.rings.simulate.made_up import MadeUpDrafter
from gardener.rings.simulate.worker import Meter


class Metered:
    """A network that says what its passes cost. See `draft.network.DraftNetwork`."""

    def __init__(self, network: DraftNetwork, curve: Curve, meter: Meter) -> None:
        self.bare, self._curve, self._meter = network, curve, meter
        self.name: str = network.name
        self.lead: int = network.lead
        self.layers: int = network.layers
        self.shape: Architecture = network.shape
        self.taps: tuple[int, ...] = network.taps
        self.outputs: int = network.outputs
        self.rotary: Rotary = network.rotary
        self.dtype: torch.dtype = network.dtype
        self.device: torch.device = network.device
        self.tokens: Tensor | None = network.tokens
        self.embeds_there: bool = network.embeds_there

    def embed(self, tokens: Tensor) -> Tensor:
        """Part of the pass after, and free."""
        return self.bare.embed(tokens)

    def run(self, rows: DraftRows) -> Tensor:
        """One pass, which is charged by its number of rows."""
        self._meter.charge(self._curve(len(rows.embedded)))
        return self.bare.run(rows)

    def logits(self, outputs: Tensor) -> Tensor:
        """Part of the pass before, and free."""
        return self.bare.logits(outputs)


class MeteredBlock(BlockNetwork):
    """A one-pass network that says what its passes cost."""

    def __init__(self, network: BlockNetwork, curve: Curve, meter: Meter) -> None:
        super().__init__(network.parts)
        self._curve, self._meter = curve, meter

    def block(self, cache: KVCache, anchor: int, place: int) -> Tensor:
        """One pass, which is charged by its number of rows. What joins the context is free."""
        self._meter.charge(self._curve(self.parts.size))
        return super().block(cache, anchor, place)


def meter_drafters(drafters: Sequence[Drafter], curve: Curve, meter: Meter) -> None:
    """Let the drafters that take time charge `curve` for each pass; those that do not are free.

    Raises LocalError for one that has no network.
    """
    for drafter in drafters:
        if isinstance(drafter, Incremental):
            network = drafter.network
            bare = network.bare if isinstance(network, Metered) else network
            drafter.network = Metered(bare, curve, meter)
        elif isinstance(drafter, BlockDrafter):
            drafter.network = MeteredBlock(drafter.network, curve, meter)
        elif isinstance(drafter, MadeUpDrafter):
            drafter.meter(curve, meter)
        elif not drafter.instant:
            raise LocalError(f"nobody knows what the drafter {drafter.name} costs")
