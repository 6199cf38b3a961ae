"""The token tree: the last sure token and the guesses that hang below it.

One rule decides life everywhere, at the holder and at every stage: a node lives if it is the root,
an ancestor of the root, or a descendant of the root. Ids count up within a request and are never
used twice; nothing is ever renumbered. Depth and paths are derived when needed and then forgotten.

Several drafters may guess at what follows a node. Each child keeps the probability that every one
of them gave it, `pool` makes one of these, and where that changes, the whole branch below is scored
anew. Drafters are numbered, and the number is their rank there.

Plain ints, no torch, no asyncio. The tree does not know what a token means, nor which nodes are
under way in the ring.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

LEAST = 1e-6
"""Probability of a child that no drafter names any more."""


class Node(NamedTuple):
    """A token at one place in the tree. `score` is the natural log of the estimated probability
    that the whole path down to here comes true, counted from where the first root stood."""

    id: int
    parent: int
    token: int
    score: float


class Guess(NamedTuple):
    """A token that may follow some node, and the estimated probability that it does."""

    token: int
    probability: float


Opinion: TypeAlias = tuple[Guess, ...] | None
"""What a drafter says may follow some node, likeliest first; None: it cannot say yet."""


def pool(opinions: Sequence[Mapping[int, float]]) -> list[float]:
    """One probability for each sibling from what drafters say of it, by number of the drafter.

    Each drafter shares out what those before it have left open, and where a later one has spoken,
    too, an earlier one is listened to as far as it is sure of itself: its weight is its highest
    probability. So a sure one leaves little to the others, and a vague one, whose guesses they
    mostly know as well, does not take their place. A sibling that several name gets a part from
    each, and the probabilities sum to one at most. (Backing off, as language models of several
    orders do. The weight was found on the prompts that the package brings, as what makes the true
    token likeliest: 1.13 nats, against 1.21 with weights of one and 1.18 with weights of a half.)
    """
    pooled = [0.0] * len(opinions)
    left = 1.0
    sources = sorted(set().union(*opinions))
    if len(sources) == 1:  # the usual case
        said = [opinion.get(sources[0], 0.0) for opinion in opinions]
        scale = 1.0 / max(sum(said), 1.0)
        return [max(scale * share, LEAST) for share in said]
    for source in sources:
        said = [opinion.get(source, 0.0) for opinion in opinions]
        total = sum(said)
        weight = 1.0 if source == sources[-1] else min(max(said), 1.0)
        scale = weight * left / max(total, 1.0)
        pooled = [before + scale * share for before, share in zip(pooled, said, strict=True)]
        left *= 1.0 - weight * min(total, 1.0)
    return [max(probability, LEAST) for probability in pooled]


class Tree:
    """The root and all that lives below it, in order of id (so parents before children)."""

    def __init__(self, root: int, token: int) -> None:
        self._nodes = {root: Node(root, root - 1, token, 0.0)}
        self._children: dict[int, dict[int, int]] = {}
        self._opinions: dict[int, dict[int, float]] = {}  # node -> drafter -> probability
        self._levels = {root: 0}  # edges between the first root and each node
        self._lowest = 0  # the highest of these so far
        self._next = root + 1
        self.root = root

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __contains__(self, node: int) -> bool:
        return node in self._nodes

    def __getitem__(self, node: int) -> Node:
        return self._nodes[node]

    def child(self, parent: int, token: int) -> Node | None:
        """The child of `parent` with this token, if there is one."""
        node = self._children.get(parent, {}).get(token)
        return None if node is None else self._nodes[node]

    def graft(self, parent: int, token: int, score: float) -> Node:
        """Add a child; where `parent` already has one with this token, that one is returned.

        Raises KeyError if `parent` is not in the tree.
        """
        self._nodes[parent]
        siblings = self._children.setdefault(parent, {})
        if token in siblings:
            return self._nodes[siblings[token]]
        node = Node(self._next, parent, token, score)
        self._next += 1
        self._nodes[node.id] = node
        level = self._levels[node.id] = self._levels[parent] + 1
        if level > self._lowest:
            self._lowest = level
        siblings[token] = node.id
        return node

    def propose(self, parent: int, source: int, guesses: Sequence[Guess]) -> int:
        """What drafter `source` says may follow `parent`, in place of what it said before.

        Children that it does not name any more stay, at what the others say of them: they may be
        under way. Returns how many children are new. Raises KeyError if `parent` is not in the
        tree.
        """
        self._nodes[parent]
        siblings = self._children.get(parent, {})
        opinions = self._opinions
        changed = False
        for node in siblings.values():
            changed |= opinions.get(node, {}).pop(source, None) is not None
        if not guesses and not changed:  # nothing said, then or now: nothing is scored anew
            return 0
        siblings = self._children.setdefault(parent, siblings)
        before = len(siblings)
        for token, probability in guesses:
            child = self.graft(parent, token, self._nodes[parent].score)
            self._opinions.setdefault(child.id, {})[source] = max(probability, LEAST)
        self._score(parent, siblings.values())
        return len(siblings) - before

    def source(self, node: int) -> frozenset[int]:
        """The drafters that stand by this node."""
        return frozenset(self._opinions.get(node, ()))

    def _score(self, parent: int, children: Iterable[int]) -> None:
        """Score the branches of these children, all of `parent`, after drafters spoke."""
        children = list(children)
        pooled = pool([self._opinions.get(child, {}) for child in children])
        above = self._nodes[parent].score
        for child, probability in zip(children, pooled, strict=True):
            score = above + math.log(min(probability, 1.0))
            if child in self._children:
                self._shift(child, score - self._nodes[child].score)
            else:
                _, _, token, _ = self._nodes[child]
                self._nodes[child] = Node(child, parent, token, score)

    def _shift(self, top: int, by: float) -> None:
        """Add to the scores of a node and of all below it.

        Rounding must not lift a node above its parent: the order of scores is the order in which
        nodes are sent, and a parent has to come before its children.
        """
        if abs(by) < 1e-9:
            return
        stack = [top]
        while stack:
            node = stack.pop()
            old = self._nodes[node]
            score = min(old.score + by, self._nodes[old.parent].score)
            self._nodes[node] = old._replace(score=score)
            stack.extend(self._children.get(node, {}).values())

    def advance(self, token: int) -> list[int]:
        """Make the root's child with this token the root, planting it if it is not there (a miss).

        Returns the ids that died: the other branches, not the old root, which is settled.
        """
        heir = self.child(self.root, token) or self.graft(
            self.root, token, self._nodes[self.root].score
        )
        stack = [n for n in self._children.pop(self.root).values() if n != heir.id]
        del self._nodes[self.root], self._levels[self.root]
        self._opinions.pop(self.root, None)
        self.root = heir.id
        dead: list[int] = []
        while stack:
            node = stack.pop()
            dead.append(node)
            del self._nodes[node], self._levels[node]
            self._opinions.pop(node, None)
            stack.extend(self._children.pop(node, {}).values())
        return dead

    def lineage(self, node: int) -> list[Node]:
        """The path from the root down to `node`, both included."""
        path = [self._nodes[node]]
        while path[-1].id != self.root:
            path.append(self._nodes[path[-1].parent])
        path.reverse()
        return path

    @property
    def height(self) -> int:
        """No node is deeper than this below the root; those that died may have been."""
        return self._lowest - self._levels[self.root]

    def depth(self, node: int) -> int:
        """Edges between the root and `node`."""
        return self._levels[node] - self._levels[self.root]
