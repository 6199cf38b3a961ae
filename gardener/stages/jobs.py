"""What a stage is given to compute, and what comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event

from gardener.model.kv_slots import Placement
from gardener.protocol import messages


@dataclass(frozen=True, eq=False)
class Job:
    """The rows of one segment to compute.

    request    whose cache they belong to
    placement  their slots, mask and positions
    tokens     [rows] token ids, at the first stage only
    hidden     [rows, width], at the other stages
    judged     indices of the rows whose picks are wanted; looked at by the last stage only
    taps       hidden states of all rows to give back; those of other stages are left to them
    cancelled  may be set by another thread when all rows of the job have died
    """

    request: int
    placement: Placement
    tokens: Sequence[int] = ()
    hidden: messages.Tensor | None = None
    judged: Sequence[int] = ()
    taps: Sequence[int] = ()
    cancelled: Event = field(default_factory=Event)

    @property
    def rows(self) -> int:
        return len(self.placement.slots)


@dataclass(frozen=True, eq=False)
class Result:
    """What comes of a job: hidden states [rows, width], or at the last stage the greedy pick after
    each judged row, in the order of `judged`. And a tensor [rows, width] for each tap here."""

    hidden: messages.Tensor | None = None
    picks: tuple[int, ...] = ()
    features: tuple[messages.Tensor, ...] = ()
