"""When the ring can take the next segment: just in time.

A segment that arrives while stage 1 is busy waits there, and was chosen with less knowledge than
there is when its turn comes. So one leaves when the slowest stage is about to be able to take it,
or a little later, when a verdict is about to come that says more. Only a root that was not sent,
without which nothing can be emitted, may leave at once.
"""

import math

from gardener.decoding.costs import Costs
from gardener.decoding.flights import Flight, Flights

WORTH = 0.5
"""A verdict that is due within this share of a tick is waited for."""

GRACE = 0.1
"""And this share of a tick longer, if it is late."""

PATIENCE = 8.0
"""A root that was not sent waits for the drafter for this many of its calls at most."""

INSTANT = 1e-6
"""A wait shorter than this, in seconds, counts as none: no timer is set."""

CALL = 8
"""Nodes assumed in one such call."""

MOMENT = 0.005
"""Seconds on top, so that a quick drafter is not given up in the next instant."""


def room_at(newest: Flight | None, oldest: Flight | None, now: float) -> float:
    """When the ring has room for a segment that is not urgent; `now` if it has room already.

    newest: what left last. oldest: the flight under way whose verdict is due next."""
    if newest is None:
        return now
    until = free = newest.left + newest.tick
    if oldest is not None and oldest.due <= free + WORTH * newest.tick:
        until = max(until, oldest.due + GRACE * newest.tick)
    return until if until - now > INSTANT else now


def verdict_in(flights: Flights, now: float) -> float:
    """Seconds until the next verdict is expected; infinite when none is, or it is late."""
    newest, oldest = flights.newest, flights.oldest
    if newest is None or oldest is None or oldest.due + GRACE * newest.tick < now:
        return math.inf
    return max(oldest.due - now, 0.0)


class Patience:
    """How long a root that was not sent may wait for the drafter."""

    def __init__(self) -> None:
        self._root = (-1, 0.0)  # the one that waits to be sent, and since when

    def ends(self, root: int, costs: Costs, now: float) -> float:
        """When it ends; `now` if it has ended. Asked first when the root could have left."""
        if self._root[0] != root:
            self._root = (root, now)
        until = self._root[1] + PATIENCE * costs.draft(CALL) + MOMENT
        return until if until - now >= INSTANT else now
