"""When the ring can take the next segment: just in time.

A segment that arrives while stage 1 is busy waits there, and was chosen with less knowledge than
there is when its turn comes. So one leaves when the slowest stage is about to be able to take it,
or a little later, when a verdict is about to come that says more. Only a root that was not sent,
without which nothing can be emitted, may leave at once.
"""

import math
from collections import deque

from gardener.decoding.costs import Costs
from gardener.decoding.policy import Policy

WORTH = 0.5
"""A verdict that is due within this share of a tick is waited for."""

GRACE = 0.1
"""And this share of a tick longer, if it is late."""

PATIENCE = 8.0
"""A root waits for the drafter for so many times what one call of it takes, and no longer."""

INSTANT = 1e-6
"""Seconds that are not worth a timer, which would be over at once."""

CALL = 8
"""Nodes in such a call."""

MOMENT = 0.005
"""Seconds that are no reason to lose patience."""


class Pacer:
    """Of one request. Times in seconds of one clock."""

    def __init__(self, policy: Policy, costs: Costs) -> None:
        self._paced = policy.paced
        self._costs = costs
        self._due = 0.0
        self._tick = 0.0  # of the segment sent last
        self._verdicts: deque[float] = deque()  # when they are expected
        self._root = (-1, 0.0)  # the one that waits to be sent, and since when

    def sent(self, now: float, rows: int) -> None:
        """A segment of so many rows has left."""
        self._tick = self._costs.tick(rows)
        self._due = now + self._tick
        self._verdicts.append(now + self._costs.round_trip(rows))

    def judged(self) -> None:
        """The verdict of the oldest segment has come."""
        if self._verdicts:
            self._verdicts.popleft()

    def wait(self, now: float, urgent: bool) -> float:
        """Seconds until there is room for a segment; 0 if there is now. `urgent`: the root was not
        sent."""
        if not self._paced or urgent:
            return 0.0
        until = self._due
        if self._verdicts and self._verdicts[0] <= self._due + WORTH * self._tick:
            until = max(until, self._verdicts[0] + GRACE * self._tick)
        return until - now if until - now > INSTANT else 0.0

    def verdict_in(self, now: float) -> float:
        """Seconds until the next verdict is expected; infinite when none is, or it is late."""
        if not self._verdicts or self._verdicts[0] + GRACE * self._tick < now:
            return math.inf
        return max(self._verdicts[0] - now, 0.0)

    def patience(self, now: float, root: int) -> float:
        """Seconds for which this root, which was not sent, may still wait for the drafter."""
        if self._root[0] != root:
            self._root = (root, now)
        return self._root[1] + PATIENCE * self._costs.draft(CALL) + MOMENT - now
