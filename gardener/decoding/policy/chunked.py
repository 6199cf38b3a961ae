"""The usual way to fill a pipeline: a tree in one segment more than there are stages."""

import math
from collections import deque
from dataclasses import dataclass, field

from gardener.decoding.costs import Costs
from gardener.decoding.policy.baselines import Seconds, whole_tree, worth_drafting
from gardener.decoding.policy.published import TREE, best_nodes, next_level
from gardener.decoding.policy.view import Bounds, View, ids


@dataclass(slots=True)
class Chunked:
    """A tree cut into stages + 1 segments of equal size; the next tree is drafted when all of them
    are back. It has as many rows as bring the most tokens per second in this number of segments."""

    bounds: Bounds
    name: str = "chunked"
    paced: bool = False
    throttled: bool = False
    _rest: deque[list[int]] = field(default_factory=deque)

    def window(self, costs: Costs) -> int:
        return costs.count + 1

    def choose(self, view: View) -> list[int]:
        while self._rest:
            chunk = [node for node in self._rest.popleft() if node in view.tree]
            if chunk:
                return chunk
        if view.flying or view.growing or not view.urgent:
            return []
        tree = self._tree(view)
        size = math.ceil(len(tree) / self.window(view.costs))
        self._rest = deque(tree[first : first + size] for first in range(0, len(tree), size))
        return self._rest.popleft()

    def grow(self, view: View) -> list[int]:
        return [] if self._rest else self._drafting(view)

    def _tree(self, view: View) -> list[int]:
        return ids(whole_tree(view, self.bounds, self._seconds(view.costs)))

    def _drafting(self, view: View) -> list[int]:
        return worth_drafting(view, self.bounds, self._seconds(view.costs))

    def _seconds(self, costs: Costs) -> Seconds:
        """The first segment takes a round trip, and each of the others leaves a tick later."""
        chunks = self.window(costs)

        def seconds(rows: int) -> float:
            size = math.ceil(rows / chunks)
            return costs.round_trip(size) + (math.ceil(rows / size) - 1) * costs.tick(size)

        return seconds


@dataclass(slots=True)
class Chunked80(Chunked):
    """With the tree that EAGLE-2 and FlowSpec publish: 80 nodes, whatever rows cost."""

    name: str = "chunked-80"

    def _tree(self, view: View) -> list[int]:
        return ids(best_nodes(view, TREE))

    def _drafting(self, view: View) -> list[int]:
        return next_level(view) if view.urgent and not view.flying else []
