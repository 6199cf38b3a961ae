"""Whether guesses pay in a ring, by the number of requests that write at the same time.

A request alone has a `Payoff` in seconds per token. Where several write, times count in those that
plain decoding should take, since they depend on the number of requests. What comes while somebody
reads a prompt says nothing: its rows take the time of those that write.
"""

import math

from gardener.decoding.costs import Costs
from gardener.decoding.payoff import SHARED_GROWTH, SHARED_LONGEST, Payoff


class Payoffs:
    """Those of one ring. `alone`: of a request that has it for itself."""

    def __init__(self, alone: Payoff) -> None:
        self._payoffs = {1: alone}
        self._before = (0, 0.0)  # requests that wrote when tokens came last, and when; 0: none

    def at(self, level: int) -> Payoff:
        """Whether guesses pay where so many requests write: 1, 2, up to 4, up to 8 and so on."""
        size = 1 << max(level - 1, 0).bit_length()
        if size not in self._payoffs:
            self._payoffs[size] = Payoff(1.0, SHARED_LONGEST, SHARED_GROWTH)
        return self._payoffs[size]

    def disturbed(self) -> None:
        """What comes next says nothing."""
        self._before = (0, 0.0)

    def emitted(self, tokens: int, level: int, costs: Costs, now: float, counts: bool) -> None:
        """Tokens came while so many requests wrote, in a ring with these costs. `counts`: of a
        request whose policy does without guesses where they do not pay, and not its first ones."""
        wrote, since = self._before
        self._before = (level, now)
        if not counts or wrote != level:
            return
        payoff, seconds = self.at(level), now - since
        plain = plain_seconds(level, costs)  # as the passes seen so far tell
        if level > 1:
            plain, seconds = 1.0, seconds / plain
        payoff.expect(plain)
        payoff.emitted(tokens, seconds)


def plain_seconds(level: int, costs: Costs) -> float:
    """Seconds from a token to the next, of any of so many requests, without guesses."""
    roots = math.ceil(level / places(costs))
    return max(costs.tick(roots) / roots, costs.round_trip(roots) / level)


def places(costs: Costs) -> int:
    """How many segments can be under way in a ring so that none waits."""
    return max(math.ceil(costs.round_trip(1) / max(costs.tick(1), 1e-9)), 1)
