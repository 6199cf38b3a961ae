"""PipeDec (Yin et al. 2025): one level of the tree per tick."""

from dataclasses import dataclass

from gardener.decoding.costs import Costs
from gardener.decoding.policy.view import Bounds, View, ids
from gardener.decoding.tree import Node

LEVEL = 16
"""Nodes in a level of the published tree."""


@dataclass(slots=True)
class PipeDec:
    """The root first, then one level of the tree per tick, each of children of the level before,
    drafted while that is computed; pruned as verdicts come, and begun anew after a miss. A level
    has as many nodes as bring the most tokens per second."""

    bounds: Bounds
    name: str = "pipedec"
    paced: bool = True
    throttled: bool = False

    def window(self, costs: Costs) -> int:
        return costs.count + 1

    def choose(self, view: View) -> list[int]:
        if view.urgent:
            return [view.tree.root]
        if view.flying >= self.window(view.costs) or view.growing:
            return []
        level = set(_deepest(view))
        nodes = view.best(
            lambda n: n.parent in level and n.id not in view.sent, self.bounds.most, 1e-9
        )
        return ids(nodes[: self._size(view, nodes)])

    def grow(self, view: View) -> list[int]:
        if view.urgent:
            return [] if view.tree.root in view.expanded else [view.tree.root]
        return [node for node in _deepest(view) if node not in view.expanded]

    def _size(self, view: View, nodes: list[Node]) -> int:
        """Nodes of a level."""
        return view.paying(nodes, self.window(view.costs))


@dataclass(slots=True)
class PipeDec16(PipeDec):
    """With the published level of 16 nodes, whatever rows cost."""

    name: str = "pipedec-16"

    def _size(self, view: View, nodes: list[Node]) -> int:
        return LEVEL


def _deepest(view: View) -> list[int]:
    """The nodes sent that are deepest in the tree."""
    found: list[int] = []
    deepest = -1
    for node in view.sent:
        depth = view.tree.depth(node)
        if depth > deepest:
            found, deepest = [], depth
        if depth == deepest:
            found.append(node)
    return found
