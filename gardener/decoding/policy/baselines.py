"""Without a pipeline: one token at a time, or a whole tree in one piece (SpecInfer, Miao et al.
2024; EAGLE-2, Li et al. 2024)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from gardener.decoding.costs import Costs
from gardener.decoding.policy.sizes import CATCH
from gardener.decoding.policy.view import Bounds, View, ids
from gardener.decoding.tree import Node


@dataclass(slots=True)
class Plain:
    """One token at a time round the ring: the lossless reference."""

    bounds: Bounds
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

    bounds: Bounds
    name: str = "serial"
    paced: bool = False
    throttled: bool = False

    def window(self, costs: Costs) -> int:
        return 1

    def choose(self, view: View) -> list[int]:
        if view.flying or view.growing or not view.urgent:
            return []
        return ids(whole_tree(view, self.bounds, view.costs.round_trip))

    def grow(self, view: View) -> list[int]:
        return worth_drafting(view, self.bounds, view.costs.round_trip)


Seconds: TypeAlias = Callable[[int], float]
"""Seconds until the verdicts of a tree with this number of rows are back."""


def whole_tree(view: View, bounds: Bounds, seconds: Seconds) -> list[Node]:
    """The root and the likeliest nodes, as many as bring the most tokens per second when nothing
    else happens meanwhile."""
    nodes = view.best(lambda node: True, bounds.most, bounds.floor)
    drafting = _growth(view, bounds)
    return nodes[: view.prefix(nodes, lambda rows: seconds(rows) + drafting)]


def worth_drafting(view: View, bounds: Bounds, seconds: Seconds) -> list[int]:
    """The likeliest nodes of the tree to be sent that were not expanded, if that is worth it."""
    if view.flying or not view.urgent:
        return []
    tree = whole_tree(view, bounds, seconds)
    best = [node for node in tree if node.id not in view.expanded][: bounds.batch]
    if not best:
        return []
    gain = CATCH * sum(view.chance(node) for node in best)
    spent = seconds(len(tree)) + _growth(view, bounds)
    rate = sum(view.chance(node) for node in tree) / max(spent, 1e-9)
    price = 0.0 if view.instant else view.costs.draft(len(best))
    return ids(best) if gain >= rate * price else []


def _growth(view: View, bounds: Bounds) -> float:
    """Seconds that drafting has taken since the root was known, about."""
    if view.instant:
        return 0.0
    alive = sum(node in view.expanded for node in ids(list(view.tree)))
    return math.ceil(alive / bounds.batch) * view.costs.draft(bounds.batch)
