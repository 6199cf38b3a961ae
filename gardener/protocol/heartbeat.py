"""The heartbeat of a link, without I/O: Pings, silence, and how long an answer takes.

Both ends ping each other, and each decides for itself when the other one is lost. Times are seconds
of one clock, which the caller reads.
"""

import math
import random
from collections import deque

from gardener.protocol.messages import Ping

ROUND_TRIPS = 32
"""Number of recent round trips that are remembered."""

AFTERMATH = 1.0
"""A link that breaks within this many seconds after this process stood still broke because of
that."""


class Heartbeat:
    """Sends a Ping every `interval` seconds once it runs; `silence` seconds without a byte from the
    peer mean that it is lost."""

    def __init__(self, interval: float, silence: float) -> None:
        self.due = math.inf
        """When the next beat is due."""
        self.last_heard = 0.0
        self.round_trips: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._interval = interval
        self._silence = silence
        self._quiet = 0  # beats since something was heard
        self._stood_still = (0.0, 0.0)  # for how many seconds this process did, and until when
        self._stamp = 0  # of the newest Ping
        self._padded = 0  # of the newest one with padding

    @property
    def round_trip(self) -> float | None:
        """Seconds from Ping to Pong: the least of the recent ones, so without our own queues."""
        return min(self.round_trips, default=None)

    def start(self, now: float) -> None:
        """The link is open: send Pings from now on."""
        self.due = now + self._interval

    def heard(self, now: float) -> None:
        """Something has come from the peer, even if it is only a part of a frame."""
        self.last_heard = now
        self._quiet = 0

    def stirred(self, now: float) -> None:
        """Something has come that anybody in between may have sent: a part of a sealed record.

        Over a slow link a whole one takes seconds, so it counts as heard, but only for as long as
        silence is allowed since the peer itself was: whoever holds up records, or feigns one that
        never ends, delays the loss once by that."""
        if now - self.last_heard < self._silence:
            self._quiet = 0

    def beat(self, now: float) -> Ping | None:
        """A beat is due: the Ping to send, or None if the peer has been silent for too long.

        Beats are counted rather than seconds. If it was this process that stood still, the peer's
        bytes still wait to be read, and a clock would call it lost too early.
        """
        self._note_lateness(now)
        self._quiet += 1
        if self._quiet * self._interval >= self._silence:
            return None
        self.due = now + self._interval
        return self.ping(now)

    def ping(self, now: float, padding: int = 0) -> Ping:
        """A Ping with a stamp that no other one has, and `padding` more bytes. These are random:
        a tunnel could compress others."""
        self._stamp = max(self._stamp + 1, _stamp(now))
        if padding:
            self._padded = self._stamp
        return Ping(self._stamp, random.randbytes(padding))

    def answered(self, stamp: int, now: float) -> float:
        """The answer to the Ping with this stamp has come; returns the seconds that it took.

        It counts as a round trip unless the Ping was padded. A peer may send any stamp, so a time
        that is negative or longer than the silence allowed does not count either.
        """
        seconds = (_stamp(now) - stamp) / 1e6
        if stamp != self._padded and 0 <= seconds <= self._silence:
            self.round_trips.append(seconds)
        return max(seconds, 0.0)

    def stood_still(self, now: float) -> float:
        """Seconds for which this process stood still until just now; 0 if it did not."""
        self._note_lateness(now)
        seconds, until = self._stood_still
        return seconds if now - until <= AFTERMATH else 0.0

    def _note_lateness(self, now: float) -> None:
        """When our own beat is very late, the peer has heard nothing and may have given us up."""
        late = now - self.due
        if late >= self._silence - 2 * self._interval:
            self._stood_still = (late, now)


def _stamp(now: float) -> int:
    return int(now * 1e6)
