"""The processor that the holder's event loop has to itself: what it does there takes time, too.

What the holder takes was measured, by policy and by what it had to do (`benchmarks.holder`), and is
charged for the two things that explain it: events that it handles, and nodes that it handles in
them. So the times are those of the work done, and two runs are still the same to the last digit.
While it is busy, nothing is received and nothing leaves.

What this does not do: let the holder's loop and the drafter compete for one core.
"""

import asyncio
from dataclasses import dataclass, field

from gardener.runtime.trace import Trace, What

HANDLED: tuple[What, ...] = ("sent", "judged", "grown")
"""Records of what costs: a segment sent, a verdict, an answer of a drafter."""


@dataclass(slots=True)
class Processor:
    """`event`, `node`: seconds for each. `free`: loop time at which all is done that was begun."""

    event: float = 0.0
    node: float = 0.0
    free: float = field(default=0.0, init=False)

    def charge(self, nodes: int) -> None:
        """Another event was handled."""
        now = asyncio.get_running_loop().time()
        self.free = max(self.free, now) + self.event + self.node * nodes


class ChargingTrace(Trace):
    """Charges a processor for what is recorded."""

    def __init__(self, processor: Processor) -> None:
        super().__init__()
        self._processor = processor

    def add(
        self,
        what: What,
        request: int = 0,
        seq: int = 0,
        rows: int = 0,
        seconds: float = 0.0,
        note: str = "",
        items: tuple[int, ...] = (),
    ) -> None:
        """See `Trace`."""
        super().add(what, request, seq, rows, seconds, note, items)
        if what in HANDLED:
            self._processor.charge(max(rows, 0))
