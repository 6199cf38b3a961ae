"""The tree that EAGLE-2 and FlowSpec publish: 80 nodes besides the root, in six levels, of each of
which the ten likeliest nodes are expanded; and segments of 16 rows."""

from operator import attrgetter

from gardener.decoding.policy.view import View
from gardener.decoding.tree import Node

TREE, DEPTH, TOP, SEGMENT = 80, 6, 10, 16

_SCORE = attrgetter("score")


def best_nodes(view: View, count: int) -> list[Node]:
    """The root, and besides it the `count` likeliest nodes of the upper levels."""
    return view.best(lambda node: view.tree.depth(node.id) <= DEPTH, count + 1, 1e-9)


def next_level(view: View, top: int = TOP) -> list[int]:
    """What to expand next: of the highest level that lacks any, those of its likeliest nodes that
    were not expanded."""
    depths = {view.tree.root: 0}
    count = min(DEPTH, view.reach - 1)
    levels: list[list[Node]] = [[] for _ in range(count)]
    for node in view.tree:
        depth = depths.setdefault(node.id, depths.get(node.parent, 0) + 1)
        if depth < count:
            levels[depth].append(node)
    for level in levels:
        level.sort(key=_SCORE, reverse=True)
        missing = [node.id for node in level[:top] if node.id not in view.expanded]
        if missing:
            return missing
    return []
