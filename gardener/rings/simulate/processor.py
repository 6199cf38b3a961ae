"""The processor of the holder's event loop, which takes time for what the holder does.

The holder's processor time was measured by policy (`benchmarks.holder`). Two things explain it: the
events that the holder handles, and the nodes in them. Each of them is charged a fixed time, so that
two runs are the same to the last digit. While the processor is busy, the holder receives and sends
nothing.

The holder's loop and the drafter do not compete for one core here.
"""

import asyncio
from dataclasses import dataclass, field

from gardener.runtime.trace import Record, Trace, What

HANDLED: tuple[What, ...] = ("sent", "judged", "grown")
"""The trace records that are charged: a segment sent, a verdict, an answer of a drafter."""


@dataclass(slots=True)
class Processor:
    """`event`, `node`: the seconds that each takes. `free`: the loop time until which it is
    busy."""

    event: float = 0.0
    node: float = 0.0
    free: float = field(default=0.0, init=False)

    def charge(self, nodes: int) -> None:
        """Be busy with one more event, which has this number of nodes."""
        now = asyncio.get_running_loop().time()
        self.free = max(self.free, now) + self.event + self.node * nodes


class ChargingTrace(Trace):
    """A trace that charges a processor for what is recorded."""

    def __init__(self, processor: Processor) -> None:
        super().__init__()
        self._processor = processor

    def keep(self, record: Record) -> None:
        """See `Trace`."""
        super().keep(record)
        if record.what in HANDLED:
            self._processor.charge(max(record.rows, 0))
