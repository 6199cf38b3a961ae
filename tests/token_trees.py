"""Texts with a tree that grows, dies and is accepted, over a real slot table."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from gardener.model.kv_slots import SlotTable
from gardener.model.placement import Placement, merge


@dataclass
class TokenTree:
    """paths  of each row that lives, from the first row of the text to itself
    slots  where each row stands by now, if whoever keeps them does all that placements say
    """

    random: random.Random
    prompt: int
    paths: dict[int, list[int]] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table = SlotTable(self.prompt, 2000)
        self.paths = {i: list(range(i + 1)) for i in range(self.prompt)}
        self._next = self.prompt
        self.read = 0

    def prompts(self, rows: int) -> tuple[Placement, list[int]]:
        """The next rows of the prompt, at most so many."""
        ids = list(range(self.read, min(self.read + rows, self.prompt)))
        self.read += len(ids)
        return self._place([ids]), ids

    def grow(self, *segments: int, newest: int = 6) -> tuple[Placement, list[int]]:
        """Children of the newest that live, so many in each segment of one pass."""
        made = [[self._child(newest) for _ in range(rows)] for rows in segments]
        return self._place(made), [row for rows in made for row in rows]

    def again(self, rows: int) -> tuple[Placement, list[int]]:
        """Some that stand in the tree, once more."""
        here = [row for row in self._living() if row in self.table]
        ids = sorted(self.random.sample(here, min(rows, len(here))))
        return self.table.again(ids), ids

    def advance(self) -> None:
        """Some row of the tree becomes the root."""
        here = [row for row in self._living() if row in self.table]
        if not here:
            return
        root = self.random.choice(here)
        path = self.paths[root]
        self.table.advance(path[path.index(self.table.root) : -1], root)
        self.paths = {
            row: path for row, path in self.paths.items() if root in path or row in self.paths[root]
        }

    def _living(self) -> list[int]:
        root = self.table.root
        return [row for row, path in self.paths.items() if root in path]

    def _child(self, newest: int) -> int:
        row, self._next = self._next, self._next + 1
        self.paths[row] = [*self.paths[self.random.choice(self._living()[-newest:])], row]
        return row

    def _place(self, segments: Sequence[list[int]]) -> Placement:
        parts = []
        for ids in segments:
            paths = [self.paths[row] for row in ids]
            parents = [path[-2] if len(path) > 1 else -1 for path in paths]
            parts.append(self.table.place(ids, parents, [len(path) - 1 for path in paths]))
        whole = merge(parts)
        if whole.moves is not None:
            sources, targets = (slots.tolist() for slots in whole.moves)
            moved = dict(zip(sources, targets, strict=True))
            self.slots = {row: moved.get(slot, slot) for row, slot in self.slots.items()}
        rows = [row for ids in segments for row in ids]
        self.slots.update(zip(rows, whole.slots.tolist(), strict=True))
        return whole
