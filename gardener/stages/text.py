"""The tokens of a request at a stage."""

from collections.abc import Sequence
from typing import NamedTuple

from gardener.errors import LocalError
from gardener.protocol.life import descendants


class _Node(NamedTuple):
    parent: int
    token: int


class Text:
    """Which tokens are certain, in their order, and which may still come true, by id.

    Rows come and die as in `SlotTable`, which also checks them: tell that one first. Prompt ids
    0..prompt-1 are a chain that is certain from the start; `beginning` are those of its tokens that
    never come, since they were taken from another request.
    """

    def __init__(self, prompt: int, beginning: Sequence[int] = ()) -> None:
        self.certain: list[int] = list(beginning)
        """Only ever grows, so that another thread may read what stood here at some time."""
        self._prompt, self._root = prompt, prompt - 1
        self._tree: dict[int, _Node] = {}

    def prefix(self, count: int) -> Sequence[int]:
        """The first tokens, all of them certain. Raises LocalError if there are not as many."""
        if count > len(self.certain):
            raise LocalError(f"{count} tokens were asked for, {len(self.certain)} are certain")
        return self.certain[:count]

    def place(self, ids: Sequence[int], parents: Sequence[int], tokens: Sequence[int]) -> None:
        """Rows have come: parents before their children."""
        for row, parent, token in zip(ids, parents, tokens, strict=True):
            if row < self._prompt or row == self._root:
                self.certain.append(token)
            else:
                self._tree[row] = _Node(parent, token)

    def advance(self, settled: Sequence[int], root: int) -> None:
        """See `SlotTable.advance`."""
        if root <= self._root:
            return
        self._root = root
        for row in (*settled, root):
            node = self._tree.pop(row, None)
            if node is not None:
                self.certain.append(node.token)
        below = descendants(root, ((row, node.parent) for row, node in self._tree.items()))
        self._tree = {row: node for row, node in self._tree.items() if row in below}

    def keep(self) -> None:
        """Forget what is not certain."""
        self._tree.clear()

    def path(self, row: int) -> tuple[int, ...]:
        """The tokens that follow the certain ones on the way to this row, its own at the end. ()
        for the row of the last certain one."""
        tokens = []
        while (node := self._tree.get(row)) is not None:
            tokens.append(node.token)
            row = node.parent
        return tuple(reversed(tokens))
