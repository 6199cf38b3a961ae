"""The token tree: the last sure token and the guesses that hang below it.

One rule decides life everywhere, at the holder and at every stage: a node lives if it is the root,
an ancestor of the root, or a descendant of the root. Ids count up within a request and are never
used twice; nothing is ever renumbered. Depth and paths are derived when needed and then forgotten.

Several drafters may guess at what follows a node. What each of them said is kept, `pool` makes one
probability of it for every child, and where that changes, the whole branch below is scored anew.
Drafters are numbered, and the number is their rank there.

Plain ints, no torch, no asyncio. The tree does not know what a token means, nor which nodes are
under way in the ring.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from operator import itemgetter
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


def pool(said: Sequence[Sequence[float]]) -> list[float]:
    """One probability for each sibling from what drafters say of it.

    said: of each drafter that names any of the siblings, by rank, the probabilities that it gives
    them all; 0.0 for those that it does not name.

    Each drafter shares out what those before it have left open, and where a later one has spoken,
    too, an earlier one is listened to as far as it is sure of itself: its weight is its highest
    probability. So a sure one leaves little to the others, and a vague one, whose guesses they
    mostly know as well, does not take their place. A sibling that several name gets a part from
    each, and the probabilities sum to one at most. (Backing off, as language models of several
    orders do. The weight was found on the prompts that the package brings, as what makes the true
    token likeliest: 1.13 nats, against 1.21 with weights of one and 1.18 with weights of a half.)
    """
    *before, last = said
    pooled, left = [0.0] * len(last), 1.0
    for shares in before:
        total, weight = sum(shares), min(max(shares), 1.0)
        scale = weight * left / max(total, 1.0)
        pooled = [part + scale * share for part, share in zip(pooled, shares, strict=True)]
        left *= 1.0 - weight * min(total, 1.0)
    scale = left / max(sum(last), 1.0)
    return [
        whole if (whole := part + scale * share) > LEAST else LEAST
        for part, share in zip(pooled, last, strict=True)
    ]


_SCORE = itemgetter(Node._fields.index("score"))
_NODE: Callable[[tuple[int, int, int, float]], Node] = partial(tuple.__new__, Node)
"""What `Node._make` does, without Python in between: hundreds are made for a segment."""


@dataclass(slots=True)
class _Fork:
    """What stands right below a node. level: edges between the first root and the children.
    children: their ids by token. said: by drafter, the probability of each token that it names."""

    level: int
    children: dict[int, int] = field(default_factory=dict)
    said: dict[int, dict[int, float]] = field(default_factory=dict)

    def scores(self, above: float, tokens: Sequence[int]) -> list[float]:
        """The score of each of these tokens below a parent that has the score `above`."""
        said = [self.said[source] for source in sorted(self.said)]
        if not said:
            return [above + math.log(LEAST)] * len(tokens)
        chances = pool([[named.get(token, 0.0) for token in tokens] for named in said])
        return [above + math.log(chance) if chance < 1.0 else above for chance in chances]


class Tree:
    """The root and all that lives below it, in order of id (so parents before children)."""

    def __init__(self, root: int, token: int) -> None:
        self._nodes = {root: Node(root, root - 1, token, 0.0)}
        self._forks: dict[int, _Fork] = {}  # by parent; a leaf has none
        self._level = 0  # edges between the first root and this one
        self._lowest = 0  # the most edges between the first root and any node so far
        self._next = root + 1
        # Nodes with at least the score `_bottom`, likeliest first. Since they were ranked, some may
        # have died, and those in `_changed` are new or have another score.
        self._ranked: list[Node] = []
        self._bottom = math.inf
        self._span = 0.0  # how far below the root's score anybody has asked
        self._stale = False
        self._changed: set[int] = set()
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
        fork = self._forks.get(parent)
        node = fork.children.get(token) if fork else None
        return None if node is None else self._nodes[node]

    def likeliest(self, lowest: float) -> Sequence[Node]:
        """The nodes with at least this score, likeliest first and parents before their children.

        Policies ask several times between two changes, and most nodes are not likely enough: the
        order is kept, and only what has changed is looked at.
        """
        nodes = self._nodes
        if lowest < self._bottom:
            top = nodes[self.root].score
            self._span = max(self._span, top - lowest)
            self._bottom = min(lowest, top - self._span)
            self._rank(nodes.values())
        elif self._stale:
            same = [node for node in self._ranked if nodes.get(node[0]) is node]
            self._rank([*same, *(nodes[node] for node in self._changed if node in nodes)])
        if lowest == self._bottom:
            return self._ranked
        return self._ranked[: bisect_right(self._ranked, -lowest, key=lambda node: -node[3])]

    def _rank(self, nodes: Iterable[Node]) -> None:
        """Keep the order of these nodes, without those below `_bottom`."""
        bottom = self._bottom
        self._ranked = [node for node in nodes if node[3] >= bottom]
        self._ranked.sort()  # by id, so that a parent that is as likely stays in front
        self._ranked.sort(key=_SCORE, reverse=True)
        self._stale = False
        self._changed.clear()

    def graft(self, parent: int, token: int, score: float) -> Node:
        """Add a child; where `parent` already has one with this token, that one is returned.

        Raises KeyError if `parent` is not in the tree.
        """
        fork = self._fork(parent)
        if token in fork.children:
            return self._nodes[fork.children[token]]
        self._add(fork, parent, (token,), (score,))
        return self._nodes[fork.children[token]]

    def propose(self, parent: int, source: int, guesses: Sequence[Guess]) -> int:
        """What drafter `source` says may follow `parent`, in place of what it said before.

        Children that it does not name any more stay, at what the others say of them: they may be
        under way. Returns how many children are new. Raises KeyError if `parent` is not in the
        tree.
        """
        above = self._nodes[parent].score
        if not guesses and (parent not in self._forks or source not in self._forks[parent].said):
            return 0  # nothing said, then or now: nothing is scored anew
        fork = self._fork(parent)
        named = dict(guesses)
        if named:
            fork.said[source] = named
        else:
            del fork.said[source]
        old = list(fork.children.values())
        new = [token for token in named if token not in fork.children]
        scores = fork.scores(above, [*fork.children, *new])
        for node, score in zip(old, scores, strict=False):
            self._rescore(node, score)
        self._add(fork, parent, new, scores[len(old) :])
        return len(new)

    def source(self, node: int) -> frozenset[int]:
        """The drafters that stand by this child of some node."""
        _, parent, token, _ = self._nodes[node]
        said = self._forks[parent].said
        return frozenset(source for source, named in said.items() if token in named)

    def _fork(self, parent: int) -> _Fork:
        """What stands below this node, even if it is nothing yet. Raises KeyError if there is no
        such node."""
        fork = self._forks.get(parent)
        if fork is None:
            fork = self._forks[parent] = _Fork(self._level_of(parent) + 1)
        return fork

    def _add(
        self, fork: _Fork, parent: int, tokens: Sequence[int], scores: Sequence[float]
    ) -> None:
        """Children with these tokens and scores, which `parent` does not have yet."""
        ids = range(self._next, self._next + len(tokens))
        fields = zip(ids, repeat(parent), tokens, scores, strict=False)
        self._nodes.update(zip(ids, map(_NODE, fields), strict=True))
        fork.children.update(zip(tokens, ids, strict=True))
        self._next = ids.stop
        self._lowest = max(self._lowest, fork.level)
        self._changed.update(ids)
        self._stale = True

    def _rescore(self, node: int, score: float) -> None:
        """Give this score to a node, and shift all below it by as much."""
        if node in self._forks:
            self._shift(node, score - self._nodes[node].score)
        else:
            self._nodes[node] = self._nodes[node]._replace(score=score)
            self._changed.add(node)
            self._stale = True

    def _shift(self, top: int, by: float) -> None:
        """Add to the scores of a node and of all below it.

        Rounding must not lift a node above its parent: the order of scores is the order in which
        nodes are sent, and a parent has to come before its children.
        """
        if abs(by) < 1e-9:
            return
        self._stale = True
        stack = [top]
        while stack:
            node = stack.pop()
            _, parent, token, score = self._nodes[node]
            score = min(score + by, self._nodes[parent].score)
            self._nodes[node] = Node(node, parent, token, score)
            self._changed.add(node)
            if node in self._forks:
                stack.extend(self._forks[node].children.values())

    def advance(self, token: int) -> list[int]:
        """Make the root's child with this token the root, planting it if it is not there (a miss).

        Returns the ids that died: the other branches, not the old root, which is settled.
        """
        heir = self.graft(self.root, token, self._nodes[self.root].score)
        fork = self._forks.pop(self.root)
        del self._nodes[self.root]
        self.root, self._level, self._stale = heir.id, fork.level, True
        dead: list[int] = []
        level = [node for node in fork.children.values() if node != heir.id]
        while level:
            dead += level
            forks = [self._forks.pop(node) for node in level if node in self._forks]
            level = [child for fork in forks for child in fork.children.values()]
        for node in dead:
            del self._nodes[node]
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
        return self._lowest - self._level

    def depth(self, node: int) -> int:
        """Edges between the root and `node`."""
        return self._level_of(node) - self._level

    def _level_of(self, node: int) -> int:
        """Edges between the first root and `node`."""
        return self._level if node == self.root else self._forks[self._nodes[node].parent].level
