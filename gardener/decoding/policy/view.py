"""What a policy is and what it sees."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Protocol, runtime_checkable

from gardener.decoding.costs import Costs
from gardener.decoding.policy.sizes import best_prefix
from gardener.decoding.tree import Node, Tree

FLOOR = 0.003
"""Least probability of a node that is worth looking at, where no user says otherwise."""

MOST = 64
"""Rows in a segment, where no user says otherwise: more are not measured."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds that a user may set; what is None follows from the measured costs.

    rows: most rows in a segment. window: most segments under way at once. floor: a node whose path
    has a smaller probability is never sent. batch: most nodes per call of the drafter.
    """

    rows: int | None = None
    window: int | None = None
    floor: float = FLOOR
    batch: int = 16

    def __post_init__(self) -> None:
        counts = (self.rows or 1, self.window or 1, self.batch)
        if 0 in (self.rows, self.window) or min(counts) < 1 or not 0 < self.floor <= 1:
            raise ValueError(f"rows, window and batch start at 1, floor lies in (0, 1]: {self}")

    @property
    def most(self) -> int:
        """Rows that a segment can have at most."""
        return self.rows or MOST


@dataclass(slots=True)
class View:
    """What a policy may look at, and must not change. (It is not frozen, because one is made for
    every question, and a frozen one takes three times as long to make.)

    sent        nodes of the tree that are in the ring or have passed it
    expanded    nodes that the drafter in question has looked at
    flying      segments under way that carry tree rows
    growing     nodes that drafters are looking at
    reach       rows this deep below the root or deeper can no longer be emitted
    instant     the drafter in question answers at once
    overdue     drafters have been waited for long enough
    verdict_in  seconds until the next verdict is expected
    beside      rows of the prompt, its last ones, that go with the next segment
    speculating guesses were seen to be worth their time
    granted     rows for the next segment, where others share the ring; None: as many as are right
    others      requests that write at the same time
    costs       what takes how long
    """

    tree: Tree
    sent: Collection[int]
    expanded: Collection[int]
    flying: int
    growing: Collection[int]
    reach: int
    instant: bool = False
    overdue: bool = False
    verdict_in: float = math.inf
    beside: int = 0
    speculating: bool = True
    granted: int | None = None
    others: int = 0
    costs: Costs = field(default_factory=lambda: Costs.flat(1))

    @property
    def urgent(self) -> bool:
        """The root has not been sent: nothing can be emitted before it is."""
        return self.tree.root not in self.sent

    @property
    def top(self) -> float:
        """The score of what is sure: chances are counted from there."""
        return self.tree[self.tree.root].score

    def chance(self, node: Node) -> float:
        """The estimated probability that this node comes true, as far as is known now."""
        return math.exp(min(node.score - self.top, 0.0))

    def best(self, want: Callable[[Node], bool], count: int, floor: float) -> list[Node]:
        """The `count` likeliest wanted nodes, likeliest first and parents before children."""
        return [node for node in self.likeliest(floor) if want(node)][:count]

    def unsent(self, count: int, floor: float) -> list[Node]:
        """The likeliest nodes that were not sent; a parent stands before its children."""
        sent = self.sent
        return [node for node in self.likeliest(floor) if node[0] not in sent][:count]

    def unexpanded(self, count: int, floor: float) -> list[Node]:
        """The likeliest nodes at which the drafter has not looked."""
        seen = self.expanded
        return [node for node in self.likeliest(floor) if node[0] not in seen][:count]

    def likeliest(self, floor: float) -> Sequence[Node]:
        """The nodes that are at least so likely and may still be emitted, likeliest first and
        parents before children."""
        nodes = self.tree.likeliest(self.top + math.log(floor))
        if self.tree.height < self.reach:  # all but the end of the answer
            return nodes
        depth, reach = self.tree.depth, self.reach
        return [node for node in nodes if depth(node.id) < reach]

    def paying(self, nodes: Sequence[Node], window: int) -> int:
        """How many of these nodes, the likeliest first, bring the most tokens per second where
        segments follow each other, with at most `window` of them under way."""
        return self.prefix(nodes, lambda rows: self.costs.lead(rows, window))

    def prefix(self, nodes: Sequence[Node], seconds: Callable[[int], float]) -> int:
        """How many of these nodes, the likeliest first, bring the most tokens per second, where
        `seconds` says what a number of rows takes. In a segment that also carries the end of the
        prompt, a node is kept only if it brings as much for the time by which it delays the first
        token."""
        top = self.top
        chances = [math.exp(min(node[3] - top, 0.0)) for node in nodes]
        size, rate = best_prefix(chances, seconds)
        if not self.beside:
            return size
        ends = [self.costs.round_trip(self.beside + rows) for rows in range(1, size + 1)]
        steps = zip(pairwise(ends), chances[1:], strict=False)
        return 1 + sum(1 for _ in takewhile(lambda s: s[1] >= rate * (s[0][1] - s[0][0]), steps))


class Policy(Protocol):
    """The decisions of the round. One object for one request."""

    @property
    def name(self) -> str: ...

    @property
    def paced(self) -> bool:
        """Segments leave when stage 1 is about to be free, chosen at that moment; or else at
        once, and wait there."""

    @property
    def throttled(self) -> bool:
        """It does without guesses where these were seen not to pay."""

    def window(self, costs: Costs) -> int:
        """Most segments under way."""

    def choose(self, view: View) -> list[int]:
        """Ids for the next segment, parents first; none to send nothing now."""

    def grow(self, view: View) -> list[int]:
        """Ids of nodes that the drafter should expand now."""


@runtime_checkable
class SharingPolicy(Policy, Protocol):
    """A policy that leaves it to the ring how many rows it sends, where requests share that."""

    def offer(self, view: View) -> list[Node]:
        """What it would send next, likeliest first and parents before children. It is then granted
        so many of these as are worth their time, and chooses with `View.granted`."""


def ids(nodes: Sequence[Node]) -> list[int]:
    """Their ids."""
    return [node.id for node in nodes]
