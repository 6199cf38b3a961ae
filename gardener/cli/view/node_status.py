"""What the screen of a node shows at one moment. All times are in seconds."""

from dataclasses import dataclass
from typing import NamedTuple


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
