"""What goes into a forward pass of a stage, and what comes out of it, segment by segment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event

from gardener.model.placement import Placement
from gardener.model.sampler import Picking
from gardener.protocol import tensors
from gardener.protocol.logprobs import TokenLogprobs

NO_PICK = -1
"""In the place of a pick after a row whose logits are not finite numbers."""


@dataclass(frozen=True, eq=False)
class PlacedSegment:
    """The rows of one segment, which have slots in the KV cache and are to be computed.

    request    whose cache they belong to
    placement  their slots, mask and positions
    tokens     [rows] token ids; computed from at the first stage only
    hidden     [rows, width], at the other stages
    pick_rows  indices of the rows after which a pick is wanted; read by the last stage only
    picking    how these are picked; None: the likeliest tokens, of which nothing else is told
    taps       layers whose hidden states are wanted of all rows; a stage gives those it has
    broken     rows that an earlier stage computed no numbers for, each with the first layer whose
               output was none
    cancelled  may be set by another thread when all rows of the segment have died
    """

    request: int
    placement: Placement
    tokens: Sequence[int] = ()
    hidden: tensors.Tensor | None = None
    pick_rows: Sequence[int] = ()
    picking: Picking | None = None
    taps: Sequence[int] = ()
    broken: Mapping[int, int] = field(default_factory=dict)
    cancelled: Event = field(default_factory=Event)

    @property
    def rows(self) -> int:
        return len(self.placement.slots)


@dataclass(frozen=True, eq=False)
class ComputedSegment:
    """What a forward pass makes of a placed segment.

    hidden    [rows, width]; None at the last stage
    picks     at the last stage, the pick after each of `pick_rows`, in their order, or NO_PICK
    logprobs  of each of these picks; () where they were not asked for
    features  [rows, width] for each tap of this stage
    broken    rows that are no numbers, here or at an earlier stage: see `PlacedSegment`
    sound     whether all that leaves is numbers, as far as one looked
    """

    hidden: tensors.Tensor | None = None
    picks: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    features: tuple[tensors.Tensor, ...] = ()
    broken: Mapping[int, int] = field(default_factory=dict)
    sound: bool = True
