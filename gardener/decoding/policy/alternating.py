"""Where drafter and stages share cores: drafting and computing by turns, at a price for time.

What one of them computes in its slack, another lacks there, so one segment is under way at a time
and nothing is drafted meanwhile. What is left to decide is how many rows a segment has and when
drafting is enough. Both follow from one price, the tokens per second of the rounds so far: a row is
sent, and a call of the drafter made, if it should bring more tokens than its time would bring
otherwise (the marginal value theorem of renewal processes; Charnov 1976). Where a text is easy,
time is dear, and rows and calls have to bring more. So it is where other requests share the ring:
each brings at least a token in the same time.
"""

from dataclasses import dataclass
from itertools import accumulate

from gardener.decoding.costs import Costs
from gardener.decoding.policy.sizes import CATCH, best_prefix
from gardener.decoding.policy.view import Bounds, View, ids
from gardener.decoding.tree import Node

MEMORY = 0.95
"""A round counts this much less with each newer one: texts change character."""


@dataclass(slots=True)
class Alternating:
    """A tree in one piece, and the next one when its verdict is there."""

    bounds: Bounds
    name: str = "alternating"
    paced: bool = False
    throttled: bool = True
    # Of the rounds so far, and of the drafting for the next one:
    _tokens: float = 0.0  # expected
    _seconds: float = 0.0

    def window(self, costs: Costs) -> int:
        return 1

    def choose(self, view: View) -> list[int]:
        if view.flying or not view.urgent:
            return []
        if not view.speculating:
            return [view.tree.root]
        if view.growing and not view.overdue:
            return []
        tree, _ = self._worth_sending(view)
        tokens = view.others + sum(view.chance(node) for node in tree)
        self._tokens = MEMORY * (self._tokens + tokens)
        self._seconds = MEMORY * (self._seconds + _seconds(view, len(tree)))
        return ids(tree)

    def grow(self, view: View) -> list[int]:
        if view.flying or not view.urgent or not view.speculating:
            return []
        tree, price = self._worth_sending(view)
        nodes = [node for node in tree if node.id not in view.expanded][: self.bounds.batch]
        if not view.instant:
            row = _seconds(view, len(tree) + 1) - _seconds(view, len(tree))
            nodes = _worth_asking(view, nodes, price, price * row)
            self._seconds += view.costs.draft(len(nodes))
        return ids(nodes)

    def _worth_sending(self, view: View) -> tuple[list[Node], float]:
        """The root and the likeliest nodes, as many as make the tokens per second of the rounds so
        far and of this one the highest; and these tokens per second."""
        nodes = view.best(lambda node: True, self.bounds.most, self.bounds.floor)
        rows, price = best_prefix(
            [view.chance(node) for node in nodes],
            lambda rows: self._seconds + _seconds(view, rows),
            self._tokens + view.others,
        )
        return nodes[:rows], price


def _seconds(view: View, rows: int) -> float:
    """A round with so many rows, and with the roots of the others."""
    return view.costs.round_trip(rows + view.others)


def _worth_asking(view: View, nodes: list[Node], price: float, row: float) -> list[Node]:
    """Those of these nodes that the drafter should look at: each may bring another true row, for
    the tokens that a row's time is worth and those that the call is worth."""
    gains = accumulate(max(CATCH * view.chance(node) - row, 0.0) for node in nodes)
    best, most = 0, 0.0
    for asked, gain in enumerate(gains, 1):
        value = gain - price * view.costs.draft(asked)
        if value > most:
            best, most = asked, value
    return nodes[:best]
