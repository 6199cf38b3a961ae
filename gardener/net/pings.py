"""The Pings of one end of a link: how long their answers took, and one that somebody waits for."""

import asyncio
import random
from collections import deque
from dataclasses import dataclass

from gardener.errors import GardenerError
from gardener.protocol.messages import Ping
from gardener.runtime import clock

LATELY = 32
"""So many of the last round trips count."""


@dataclass(frozen=True)
class _Probe:
    """A Ping that somebody waits for."""

    ping: Ping
    answered: "asyncio.Future[float]"


class Pings:
    """Makes them and is told of their answers."""

    def __init__(self, longest: float) -> None:
        """An answer after more than `longest` seconds says nothing: a peer may send any number."""
        self.round_trips: deque[float] = deque(maxlen=LATELY)  # seconds
        self._longest = longest
        self._stamp = 0  # of the newest Ping
        self._probe: _Probe | None = None

    @property
    def round_trip(self) -> float | None:
        """Seconds from Ping to Pong: the least of the last few, so without our own queues."""
        return min(self.round_trips, default=None)

    def ping(self, padding: int = 0) -> Ping:
        """A new one, with a stamp that no other has and so many bytes more. They are random, or a
        tunnel might compress them."""
        self._stamp = max(self._stamp + 1, _microseconds())
        return Ping(self._stamp, random.randbytes(padding))

    def probe(self, padding: int) -> tuple[Ping, "asyncio.Future[float]"]:
        """A Ping, and what will be the seconds until it was answered. One at a time."""
        self._probe = _Probe(self.ping(padding), asyncio.get_running_loop().create_future())
        return self._probe.ping, self._probe.answered

    def answered(self, stamp: int) -> None:
        """A Pong has come."""
        seconds = (_microseconds() - stamp) / 1e6
        probe = self._probe
        if probe is not None and stamp == probe.ping.stamp:
            self._probe = None
            if not probe.answered.done():
                probe.answered.set_result(max(seconds, 0.0))
            if probe.ping.padding:
                return
        if 0 <= seconds <= self._longest:
            self.round_trips.append(seconds)

    def end(self, error: GardenerError) -> None:
        """No answer will come any more."""
        if self._probe is not None and not self._probe.answered.done():
            self._probe.answered.set_exception(error)
        self._probe = None


def _microseconds() -> int:
    return int(clock.now() * 1e6)  # the loop's own time may go by whole milliseconds
