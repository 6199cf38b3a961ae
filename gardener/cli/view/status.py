"""What a frame shows: the state of a holder or a node at one moment. All times are in seconds."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from gardener.decoding.limits import Counts

TreeNodeState: TypeAlias = Literal["judged", "ring", "waiting"]
"""Judged by the target model already; in the ring; not sent yet."""


class ColouredText(NamedTuple):
    """Some text, and whether the tokens that it came from had been guessed."""

    text: str
    guessed: bool


class ShownNode(NamedTuple):
    """A node of the token tree. `probability` is that of its path from the root."""

    id: int
    parent: int
    text: str
    probability: float
    state: TreeNodeState


class MovingSegment(NamedTuple):
    """A segment under way: its rows by kind, and an estimate of where it is.

    `stage` counts from 1, and `progress` within that stage from 0 to 1.
    """

    seq: int
    prompt: int
    root: int
    guesses: int
    dead: int
    stage: int
    progress: float

    @property
    def rows(self) -> int:
        return self.prompt + self.root + self.guesses + self.dead


class StageStatus(NamedTuple):
    """A stage as the holder sees it.

    `compute` and `wait` are recent means for a segment, `busy` is the share of time it computed.
    `said` is the last line of a stage on this machine that is still starting.
    """

    stage: int
    layers: str = ""
    name: str = ""
    compute: float | None = None
    wait: float | None = None
    busy: float = 0.0
    said: str = ""


@dataclass(frozen=True, slots=True)
class AnswerFigures:
    """The figures of a request. `rate` is in tokens per second lately, `mean` over all."""

    counts: Counts = field(default_factory=Counts)
    nodes: int = 0
    rate: float = 0.0
    mean: float = 0.0
    rates: tuple[float, ...] = ()
    first_token: float | None = None

    @property
    def pruned(self) -> int:
        """Nodes that were drafted, but neither accepted nor in the tree now."""
        return max(self.counts.drafted - self.counts.accepted - max(self.nodes - 1, 0), 0)


@dataclass(frozen=True, slots=True)
class HolderStatus:
    """All that the screen of a holder shows."""

    state: str = "starting"
    trouble: bool = False
    elapsed: float = 0.0
    policy: str = ""
    stages: tuple[StageStatus, ...] = ()
    segments: tuple[MovingSegment, ...] = ()
    round_trips: tuple[float | None, float | None] = (None, None)
    tree: tuple[ShownNode, ...] = ()
    pruned: tuple[str, ...] = ()
    text: tuple[ColouredText, ...] = ()
    exact: str = ""
    figures: AnswerFigures = field(default_factory=AnswerFigures)
    said: tuple[str, ...] = ()


class LinkStatus(NamedTuple):
    """A link to a neighbour. `heard` is the time since its last byte; the rest are bytes."""

    to: str
    name: str = ""
    heard: float = 0.0
    round_trip: float | None = None
    received: int = 0
    sent: int = 0


class WorkStatus(NamedTuple):
    """What a node computes: recent rates and means, then totals since its start."""

    waiting: int = 0  # segments
    requests: int = 0
    rows_per_second: float = 0.0
    rates: tuple[float, ...] = ()
    forward: float | None = None
    rows_per_forward: float = 0.0
    busy: float = 0.0
    forwards: int = 0
    rows: int = 0
    dropped: int = 0  # rows that were dead before they were computed


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """All that the screen of a node shows."""

    stage: int
    state: str = "loading"
    holds: str = ""
    uptime: float = 0.0
    listening: str = ""
    peer: str = ""
    upstream: LinkStatus | None = None
    downstream: LinkStatus | None = None
    work: WorkStatus | None = None
    said: tuple[str, ...] = ()
    ready: bool = False
