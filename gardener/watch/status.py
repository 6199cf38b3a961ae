"""What there is to see of a ring at one moment. All times are in seconds.

The terminal draws it, the page gets it as JSON, a recording keeps it: so these are plain values.
"""

from typing import Literal, NamedTuple, TypeAlias

import msgspec

from gardener.decoding.limits import Counts

TreeNodeState: TypeAlias = Literal["judged", "ring", "waiting"]
"""Judged by the target model already; in the ring; not sent yet."""


class ColouredText(NamedTuple):
    """Some text, and whether the tokens that it came from had been guessed."""

    text: str
    guessed: bool


class ShownNode(msgspec.Struct, frozen=True):
    """A node of the token tree. `probability` is that of its path from the root."""

    id: int
    parent: int
    text: str
    probability: float
    state: TreeNodeState


class MovingSegment(msgspec.Struct, frozen=True):
    """A segment of a request under way: its rows by kind, and an estimate of where it is.

    `stage` counts from 1, and `progress` within that stage from 0 to 1.
    """

    seq: int
    prompt: int
    root: int
    guesses: int
    dead: int
    stage: int
    progress: float
    request: int = 0

    @property
    def rows(self) -> int:
        return self.prompt + self.root + self.guesses + self.dead


class StageStatus(msgspec.Struct, frozen=True):
    """A stage as the holder sees it.

    Over all requests: `compute` and `wait` are recent means for a segment, `busy` is the share of
    the last seconds in which it computed, 0 while nothing runs.
    `said` is the last line of a stage on this machine that is still starting. `to_next`: one way to
    the next peer as the stage measured it, in seconds (None: not known), and `bandwidth` of that
    link in bytes/s (0: not known).
    """

    stage: int
    layers: str = ""
    name: str = ""
    compute: float | None = None
    wait: float | None = None
    busy: float = 0.0
    said: str = ""
    to_next: float | None = None
    bandwidth: int = 0


class KVMemory(msgspec.Struct, frozen=True):
    """Slots for keys and values, of a token each and the same at every stage: those that are set
    aside or kept, those there are (None: nobody has said), and the bytes of one over all stages.
    """

    used: int = 0
    room: int | None = None
    slot: int = 0


class AnswerFigures(msgspec.Struct, frozen=True):
    """The figures of a request. `rate` is in tokens per second lately, `mean` over all, `plain`
    what the ring should do without guesses (0: not known). `depths`: guesses that were sent, and
    those accepted, for each depth below the root as it was when they left, from 1 on. `alone`: no
    other request has had a share of the ring since it began, so `mean` compares with `plain`."""

    counts: Counts = msgspec.field(default_factory=Counts)
    nodes: int = 0
    rate: float = 0.0
    mean: float = 0.0
    rates: tuple[float, ...] = ()
    first_token: float | None = None
    plain: float = 0.0
    depths: tuple[tuple[int, int], ...] = ()
    alone: bool = True

    @property
    def pruned(self) -> int:
        """Nodes that were drafted, but neither accepted nor in the tree now."""
        return max(self.counts.drafted - self.counts.accepted - max(self.nodes - 1, 0), 0)


class RequestLine(msgspec.Struct, frozen=True):
    """A request besides the one that is shown large. `state` is `waiting` for its turn, `reading`
    the prompt or `writing`; `rate` and `mean` are in tokens per second."""

    number: int
    state: Literal["waiting", "reading", "writing"]
    policy: str = ""
    prompt: int = 0
    tokens: int = 0
    rate: float = 0.0
    mean: float = 0.0
    elapsed: float = 0.0


class HolderStatus(msgspec.Struct, frozen=True):
    """All that is shown of a holder. `request` is the number of the one that is shown large: the
    oldest that runs, else the one that was shown last. `others` are the rest, the oldest first.
    `running` counts those that run. `flight`: from sending a segment to its verdict, lately.
    `address` is where it is served, if it is.
    """

    state: str = "starting"
    trouble: bool = False
    elapsed: float = 0.0
    request: int = 0
    running: int = 0
    address: str = ""
    policy: str = ""
    stages: tuple[StageStatus, ...] = ()
    segments: tuple[MovingSegment, ...] = ()
    flight: float = 0.0
    round_trips: tuple[float | None, float | None] = (None, None)
    tree: tuple[ShownNode, ...] = ()
    pruned: tuple[str, ...] = ()
    text: tuple[ColouredText, ...] = ()
    exact: str = ""
    memory: KVMemory = msgspec.field(default_factory=KVMemory)
    figures: AnswerFigures = msgspec.field(default_factory=AnswerFigures)
    others: tuple[RequestLine, ...] = ()
    said: tuple[str, ...] = ()
