"""What a stage shows to somebody who only looks at it."""

import platform
from collections.abc import Callable
from dataclasses import dataclass

from gardener.net.link import Link
from gardener.protocol.messages import microseconds
from gardener.protocol.names import as_name
from gardener.protocol.sight import Near, Sight
from gardener.runtime.clock import wall_clock


@dataclass(frozen=True)
class Machine:
    """What a stage computes on. `free`: asks for the bytes that nobody uses there now; it is called
    on the event loop, so it must be quick."""

    device: str = ""
    free: Callable[[], int] = lambda: 0
    torch: str = ""

    def sight(self, does: str = "") -> Sight:
        """What is to be seen of a stage that has no links yet, and `does` this instead."""
        return Sight(
            clock=wall_clock(),
            does=as_name(does),
            device=self.device,
            free=self.free(),
            python=platform.python_version(),
            torch=self.torch,
        )


UNKNOWN = Machine()
"""That of a stage which has not said what it computes on."""


def near(link: Link | None) -> Near | None:
    """A neighbour as others may see it."""
    if link is None:
        return None
    return Near(
        link.peer.stage,
        as_name(link.where),
        microseconds(link.round_trip or 0.0),
        microseconds(link.silent),
        min(round(link.bandwidth or 0), 2**53),
    )
