"""How long and how wide a link is: timed with Pings, some of which carry bytes.

The end that dialled does this once, before anybody uses the link. Only the way to the peer is
measured, which is the way that work takes: the answer to a Ping does not bring its bytes back.
"""

import asyncio
import contextlib

from gardener.errors import GardenerError
from gardener.net.link import Link
from gardener.protocol.messages import MAX_PADDING

PATIENCE = 0.5
"""Seconds that measuring a link may take; what is not known by then stays unknown."""

PROBES = 3
"""Number of Pings of each size, of which the quickest counts: the first ones also wake processors
up, and widen the window of a TCP connection."""

SIZES = (2**16, MAX_PADDING)
"""Bytes that the Pings carry: the next size is tried where one makes no difference."""

ENOUGH = 0.005
"""Seconds of difference that cannot be chance."""


async def measure_link(link: Link) -> None:
    """Measure the round trip and the bandwidth of a link. One that ends meanwhile is no error
    here: `link.ended` says so."""
    with contextlib.suppress(GardenerError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            for _ in range(PROBES):
                await link.ping()
            for size in SIZES:
                if await _try(link, size) > ENOUGH:
                    return


async def _try(link: Link, size: int) -> float:
    """Set the link's bandwidth; returns the seconds that `size` bytes take more than none."""
    quickest = float("inf")
    for _ in range(PROBES):
        quickest = min(quickest, await link.ping(size))
        more = quickest - (link.round_trip or 0.0)
        link.bandwidth = size / more if more > 0 else None
    return more
