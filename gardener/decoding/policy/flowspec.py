"""FlowSpec (Liu et al. 2025): a tree in segments, pruned and extended on the way."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gardener.decoding.costs import Costs
from gardener.decoding.policy.published import SEGMENT, TREE, best_nodes, next_level
from gardener.decoding.policy.view import Bounds, View, ids
from gardener.decoding.tree import Node

REDRAFT = 64
"""Nodes of a tree that was drafted on after an accept."""


@dataclass(slots=True)
class FlowSpec:
    """A new tree in segments, the likeliest nodes first. After every accept the tree is drafted on,
    and what is new among its best nodes goes out in segments. After a miss, everything begins anew
    from the true token.

    Its tree has the published five segments, and four after an accept; a segment has as many rows
    as bring the most tokens per second, 16 where that many are nearly free.
    """

    bounds: Bounds
    name: str = "flowspec"
    paced: bool = False
    throttled: bool = False
    _rest: deque[list[int]] = field(default_factory=deque)
    _done: int = -1  # the root whose tree is cut up or was looked at

    def window(self, costs: Costs) -> int:
        return 2 * (costs.count + TREE // SEGMENT)

    def choose(self, view: View) -> list[int]:
        while self._rest:
            segment = [node for node in self._rest.popleft() if node in view.tree]
            if segment:
                return segment
        if view.growing or self._done == view.tree.root:
            return []
        if view.flying >= self.window(view.costs):
            return []
        if view.beside:  # with the end of the prompt the root alone, or it would hold that up
            return [view.tree.root]
        self._done = view.tree.root
        return self._first(view) if view.urgent else self._further(view)

    def grow(self, view: View) -> list[int]:
        return [] if self._rest or self._done == view.tree.root else next_level(view)

    def _first(self, view: View) -> list[int]:
        """Of a new tree."""
        nodes = best_nodes(view, TREE)
        size = self._size(view, nodes)
        return self._cut(nodes[: size * TREE // SEGMENT + 1], size)

    def _further(self, view: View) -> list[int]:
        """What an accept brought."""
        nodes = best_nodes(view, REDRAFT)
        size = self._size(view, nodes)
        kept = nodes[: size * REDRAFT // SEGMENT + 1]
        return self._cut([node for node in kept if node.id not in view.sent], size)

    def _size(self, view: View, nodes: Sequence[Node]) -> int:
        """Rows of a segment."""
        return view.paying(nodes[: self.bounds.most], self.window(view.costs))

    def _cut(self, nodes: Sequence[Node], size: int) -> list[int]:
        """The first segment; the others follow."""
        rows = ids(nodes)
        self._rest = deque(rows[at : at + size] for at in range(0, len(rows), size))
        return self._rest.popleft() if self._rest else []


@dataclass(slots=True)
class FlowSpec80(FlowSpec):
    """With its published sizes: a tree of 80 in segments of 16, and all that an accept brought in
    one segment."""

    name: str = "flowspec-80"

    def _size(self, view: View, nodes: Sequence[Node]) -> int:
        return SEGMENT

    def _further(self, view: View) -> list[int]:
        return [node.id for node in best_nodes(view, REDRAFT) if node.id not in view.sent]
