"""Which nodes go into the ring next, and how many. Baselines are policies too.

A policy sees one request through a `View` and answers two questions: `choose`, the rows of the next
segment, and `grow`, the nodes the drafter should expand. It has no state of its own, so the same
view always gives the same answer.

What this does not know yet: measured costs. `Shape.rows` and `Shape.floor` are constants here.
"""

import heapq
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from gardener.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes a policy works with.

    rows: most rows in a segment. window: most segments under way at once. floor: a node whose path
    has a smaller probability is not worth a row. batch: nodes per call of the drafter.
    """

    rows: int = 16
    window: int = 2
    floor: float = 0.2
    batch: int = 8

    def __post_init__(self) -> None:
        if min(self.rows, self.window, self.batch) < 1 or not 0 < self.floor <= 1:
            raise ValueError(f"rows, window and batch start at 1, floor lies in (0, 1]: {self}")


@dataclass(frozen=True, slots=True)
class View:
    """What a policy may look at.

    sent: nodes of the tree that are in the ring or have passed it. expanded: nodes that the drafter
    in question has looked at. flying: segments under way that carry tree rows. growing: some
    drafter is at work. reach: rows this deep below the root or deeper can no longer be emitted.
    """

    tree: Tree
    sent: Collection[int]
    expanded: Collection[int]
    flying: int
    growing: bool
    reach: int

    def best(self, want: Callable[[Node], bool], count: int, floor: float) -> list[Node]:
        """The `count` likeliest wanted nodes, likeliest first and parents before children."""
        lowest = self.tree[self.tree.root].score + math.log(floor)
        found = (n for n in self.tree if n.score >= lowest and want(n) and self._within(n))
        return heapq.nsmallest(count, found, key=lambda node: (-node.score, node.id))

    def _within(self, node: Node) -> bool:
        # Depth is asked last and seldom matters: only near the end of the answer.
        return len(self.tree) <= self.reach or self.tree.depth(node.id) < self.reach


class Policy(Protocol):
    """The two decisions of the round (design, section 6)."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> Shape: ...

    def choose(self, view: View) -> list[int]:
        """Ids for the next segment, parents first; none to send nothing now."""

    def grow(self, view: View) -> list[int]:
        """Ids of nodes that the drafter should expand now."""


@dataclass(frozen=True, slots=True)
class Plain:
    """One token at a time round the ring: the lossless reference."""

    shape: Shape
    name: str = "plain"

    def choose(self, view: View) -> list[int]:
        return [] if view.tree.root in view.sent else [view.tree.root]

    def grow(self, view: View) -> list[int]:
        return []


@dataclass(frozen=True, slots=True)
class Serial:
    """A whole tree in one piece, wait, verify, redraft."""

    shape: Shape
    name: str = "serial"

    def choose(self, view: View) -> list[int]:
        if view.flying or view.growing:
            return []
        return _root_and_best(view, self.shape)

    def grow(self, view: View) -> list[int]:
        if view.flying:
            return []
        # Until the best nodes have all been looked at: then no better ones can be found.
        best = view.best(lambda n: True, self.shape.rows, self.shape.floor)
        return [n.id for n in best if n.id not in view.expanded][: self.shape.batch]


@dataclass(frozen=True, slots=True)
class Gardener:
    """Continuous: the root first, then the likeliest nodes, segment after segment, without waiting
    for the verdict, the drafter or a stage."""

    shape: Shape
    name: str = "gardener"

    def choose(self, view: View) -> list[int]:
        if view.flying >= self.shape.window:
            return []
        return _root_and_best(view, self.shape)

    def grow(self, view: View) -> list[int]:
        ready = view.best(lambda n: n.id not in view.sent, 2 * self.shape.rows, self.shape.floor)
        if len(ready) < 2 * self.shape.rows:
            return _unexpanded(view, self.shape)
        root = view.tree.root  # what follows it decides first
        return [] if root in view.expanded else [root]


def _root_and_best(view: View, shape: Shape) -> list[int]:
    """The root, unless it is under way, and the likeliest nodes that are not."""
    return [n.id for n in view.best(lambda n: n.id not in view.sent, shape.rows, shape.floor)]


def _unexpanded(view: View, shape: Shape) -> list[int]:
    """The likeliest nodes that were never expanded, if their children may still be emitted."""
    found = view.best(lambda n: n.id not in view.expanded, shape.batch, shape.floor)
    return [n.id for n in found]


POLICIES: dict[str, Callable[[Shape], Policy]] = {
    "plain": Plain,
    "serial": Serial,
    "gardener": Gardener,
}


def make(name: str, shape: Shape) -> Policy:
    """The policy of this name. Raises KeyError if there is none."""
    return POLICIES[name](shape)
