"""The token tree: the last sure token and the guesses that hang below it.

One rule decides life everywhere, at the holder and at every stage: a node lives if it is the root,
an ancestor of the root, or a descendant of the root. Ids count up within a request and are never
used twice; nothing is ever renumbered. Depth and paths are derived when needed and then forgotten.

Plain ints, no torch, no asyncio. The tree does not know what a token means, nor which nodes are
under way in the ring.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


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


def descendants(root: int, rows: Iterable[tuple[int, int]]) -> set[int]:
    """Ids of the `(id, parent)` rows below `root`; parents come before their children."""
    below: set[int] = set()
    for row, parent in rows:
        if parent == root or parent in below:
            below.add(row)
    return below


class Tree:
    """The root and all that lives below it, in order of id (so parents before children)."""

    def __init__(self, root: int, token: int) -> None:
        self._nodes = {root: Node(root, root - 1, token, 0.0)}
        self._children: dict[int, dict[int, int]] = {}
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
        siblings[token] = node.id
        return node

    def advance(self, token: int) -> list[int]:
        """Make the root's child with this token the root, planting it if it is not there (a miss).

        Returns the ids that died: the other branches, not the old root, which is settled.
        """
        heir = self.child(self.root, token) or self.graft(
            self.root, token, self._nodes[self.root].score
        )
        stack = [n for n in self._children.pop(self.root).values() if n != heir.id]
        del self._nodes[self.root]
        self.root = heir.id
        dead: list[int] = []
        while stack:
            node = stack.pop()
            dead.append(node)
            del self._nodes[node]
            stack.extend(self._children.pop(node, {}).values())
        return dead

    def lineage(self, node: int) -> list[Node]:
        """The path from the root down to `node`, both included."""
        path = [self._nodes[node]]
        while path[-1].id != self.root:
            path.append(self._nodes[path[-1].parent])
        path.reverse()
        return path

    def depth(self, node: int) -> int:
        """Edges between the root and `node`."""
        return len(self.lineage(node)) - 1
