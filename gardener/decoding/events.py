"""What a decoding is told, its events, and what it answers, its commands."""

from dataclasses import dataclass, field
from typing import TypeAlias

from gardener.decoding.tree import Node, Opinion
from gardener.protocol.messages import Advance, Close, Open, Segment, Verdict


@dataclass(frozen=True, slots=True)
class Grown:
    """A drafter's answer: for each node that was to be expanded, what may follow it."""

    children: tuple[tuple[int, Opinion], ...]
    source: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict came back from the last stage."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Room:
    """The ring can take a segment. `overdue`: it has waited for the drafter for long enough."""

    overdue: bool = False


@dataclass(frozen=True, slots=True)
class StageLost:
    """The ring is broken: nothing more can be computed."""


@dataclass(frozen=True, slots=True)
class Emit:
    """These tokens are now part of the answer; `nodes` are the same in the tree."""

    tokens: tuple[int, ...]
    nodes: tuple[Node, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Send:
    """Tell the ring."""

    message: Open | Segment | Advance | Close


@dataclass(frozen=True, slots=True)
class Grow:
    """Ask a drafter what may follow these nodes."""

    nodes: tuple[int, ...]
    source: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is complete: `eos`, `stop` (a stop string), `length`, `context` or `lost`."""

    reason: str


Event: TypeAlias = Grown | Judged | Room | StageLost
Command: TypeAlias = Emit | Send | Grow | Finish
