"""What others do, on the same tree, drafters, ring and stages, as well as their papers say.

    serial    a whole tree in one piece (SpecInfer, Miao et al. 2024; EAGLE-2, Li et al. 2024)
    chunked   the same tree in stages + 1 pieces, the usual way to fill a pipeline
    pipedec   one level of the tree per tick (PipeDec, Yin et al. 2025)
    flowspec  the best nodes in segments of 16, pruned and extended on the way (FlowSpec, Liu et al.
              2025), with its published sizes

Where a paper leaves a size open, it comes from the measured costs, as for `gardener`.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from gardener.costs import Costs
from gardener.policy.sizes import CATCH, best_prefix
from gardener.policy.view import Shape, View, ids
from gardener.tree import Node


@dataclass(slots=True)
class Plain:
    """One token at a time round the ring: the lossless reference."""

    shape: Shape
    name: str = "plain"
    paced: bool = False
    throttled: bool = False

    def window(self, costs: Costs) -> int:
        return 1

    def choose(self, view: View) -> list[int]:
        return [view.tree.root] if view.urgent else []

    def grow(self, view: View) -> list[int]:
        return []


@dataclass(slots=True)
class Serial:
    """A whole tree in one piece, wait, verify, redraft. It stops drafting when another call of the
    drafter would take longer than the tokens that it may bring are worth, and sends as many rows as
    bring the most tokens per second."""

    shape: Shape
    name: str = "serial"
    paced: bool = False
    throttled: bool = False

    def window(self, costs: Costs) -> int:
        return 1

    def choose(self, view: View) -> list[int]:
        if view.flying or view.growing or not view.urgent:
            return []
        return ids(whole_tree(view, self.shape))

    def grow(self, view: View) -> list[int]:
        return worth_drafting(view, self.shape)


def whole_tree(view: View, shape: Shape) -> list[Node]:
    """The root and the likeliest nodes, as many as bring the most tokens per second when nothing
    else happens meanwhile."""
    nodes = view.best(lambda node: True, shape.most, shape.floor)
    seconds = _growth(view, shape)
    size, _ = best_prefix(
        [view.chance(node) for node in nodes], lambda rows: view.costs.circle(rows) + seconds
    )
    return nodes[:size]


def worth_drafting(view: View, shape: Shape) -> list[int]:
    """The likeliest nodes of the tree to be sent that were not expanded, if that is worth it."""
    if view.flying or not view.urgent:
        return []
    tree = whole_tree(view, shape)
    best = [node for node in tree if node.id not in view.expanded][: shape.batch]
    if not best:
        return []
    gain = CATCH * sum(view.chance(node) for node in best)
    spent = view.costs.circle(len(tree)) + _growth(view, shape)
    rate = sum(view.chance(node) for node in tree) / max(spent, 1e-9)
    price = 0.0 if view.instant else view.costs.draft(len(best))
    return ids(best) if gain >= rate * price else []


def _growth(view: View, shape: Shape) -> float:
    """Seconds that drafting has taken since the root was known, about."""
    if view.instant:
        return 0.0
    alive = sum(node in view.expanded for node in ids(list(view.tree)))
    return math.ceil(alive / shape.batch) * view.costs.draft(shape.batch)


@dataclass(slots=True)
class Chunked:
    """The tree of `serial`, cut into stages + 1 segments of equal size; the next tree is drafted
    when all of them are back."""

    shape: Shape
    name: str = "chunked"
    paced: bool = False
    throttled: bool = False
    _rest: deque[list[int]] = field(default_factory=deque)

    def window(self, costs: Costs) -> int:
        return len(costs.stages) + 1

    def choose(self, view: View) -> list[int]:
        while self._rest:
            chunk = [node for node in self._rest.popleft() if node in view.tree]
            if chunk:
                return chunk
        if view.flying or view.growing or not view.urgent:
            return []
        tree = ids(whole_tree(view, self.shape))
        size = math.ceil(len(tree) / self.window(view.costs))
        self._rest = deque(tree[first : first + size] for first in range(0, len(tree), size))
        return self._rest.popleft()

    def grow(self, view: View) -> list[int]:
        return [] if self._rest else worth_drafting(view, self.shape)


LEVEL = 16
"""Nodes in a level of PipeDec's tree."""


@dataclass(slots=True)
class PipeDec:
    """The root first, then one level of the tree per tick, each of children of the level before,
    drafted while that is computed; pruned as verdicts come, and begun anew after a miss."""

    shape: Shape
    name: str = "pipedec"
    paced: bool = True
    throttled: bool = False

    def window(self, costs: Costs) -> int:
        return len(costs.stages) + 1

    def choose(self, view: View) -> list[int]:
        if view.urgent:
            return [view.tree.root]
        if view.flying >= self.window(view.costs) or view.growing:
            return []
        return ids(self._next(view))

    def grow(self, view: View) -> list[int]:
        if view.urgent:
            return [] if view.tree.root in view.expanded else [view.tree.root]
        return [node for node in _deepest(view) if node not in view.expanded]

    def _next(self, view: View) -> list[Node]:
        """The likeliest children of the level sent last."""
        level = set(_deepest(view))
        most = min(self.shape.most, LEVEL)
        return view.best(lambda n: n.parent in level and n.id not in view.sent, most, 1e-9)


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


TREE, REDRAFT, DEPTH, TOP, SEGMENT = 80, 64, 6, 10, 16
"""FlowSpec's sizes: nodes of a new tree, and of one redrafted after an accept; levels; nodes that
are expanded per level; rows of a segment."""


@dataclass(slots=True)
class FlowSpec:
    """A new tree in segments of 16, the likeliest nodes first. After every accept the tree is
    drafted on, and what is new among its best 64 nodes goes out as one segment. After a miss,
    everything begins anew from the true token."""

    shape: Shape
    name: str = "flowspec"
    paced: bool = False
    throttled: bool = False
    _rest: deque[list[int]] = field(default_factory=deque)
    _done: int = -1  # the root whose tree is cut up or was looked at

    def window(self, costs: Costs) -> int:
        return 2 * (len(costs.stages) + TREE // SEGMENT)

    def choose(self, view: View) -> list[int]:
        while self._rest:
            segment = [node for node in self._rest.popleft() if node in view.tree]
            if segment:
                return segment
        if view.growing or self._done == view.tree.root:
            return []
        if view.flying >= self.window(view.costs):
            return []
        self._done = view.tree.root
        return self._first(view) if view.urgent else self._further(view)

    def _first(self, view: View) -> list[int]:
        """Of a new tree."""
        nodes = ids(_shallow(view, TREE))
        self._rest = deque(nodes[at : at + SEGMENT] for at in range(0, len(nodes), SEGMENT))
        return self._rest.popleft()

    def _further(self, view: View) -> list[int]:
        """What an accept brought."""
        return [node.id for node in _shallow(view, REDRAFT) if node.id not in view.sent]

    def grow(self, view: View) -> list[int]:
        if self._rest or self._done == view.tree.root:
            return []
        levels: list[list[Node]] = [[] for _ in range(DEPTH)]
        for node in view.tree:
            depth = view.tree.depth(node.id)
            if depth < min(DEPTH, view.reach - 1):
                levels[depth].append(node)
        for level in levels:
            best = sorted(level, key=lambda node: -node.score)[:TOP]
            missing = [node.id for node in best if node.id not in view.expanded]
            if missing:
                return missing
        return []


def _shallow(view: View, count: int) -> list[Node]:
    """The likeliest nodes down to FlowSpec's depth, as many besides the root."""
    return view.best(lambda node: view.tree.depth(node.id) <= DEPTH, count + 1, 1e-9)
