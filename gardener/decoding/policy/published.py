"""The tree that EAGLE-2 and FlowSpec publish: 80 nodes besides the root, in six levels, of each of
which the ten likeliest nodes are expanded; and segments of 16 rows."""

from gardener.decoding.policy.view import View, ids
from gardener.decoding.tree import Node

TREE, DEPTH, TOP, SEGMENT = 80, 6, 10, 16


def best_nodes(view: View, count: int) -> list[Node]:
    """The root and the likeliest nodes of the upper levels, so many besides the root."""
    return view.best(lambda node: view.tree.depth(node.id) <= DEPTH, count + 1, 1e-9)


def next_level(view: View, top: int = TOP) -> list[int]:
    """What to expand next: of the highest level that lacks any, those of its likeliest nodes that
    were not expanded."""
    levels: list[list[Node]] = [[] for _ in range(DEPTH)]
    for node in view.tree:
        depth = view.tree.depth(node.id)
        if depth < min(DEPTH, view.reach - 1):
            levels[depth].append(node)
    for level in levels:
        best = sorted(level, key=lambda node: -node.score)[:top]
        missing = [node for node in best if node.id not in view.expanded]
        if missing:
            return ids(missing)
    return []
