"""Attention that leaves no trace: trees in random slots against plain decoding of every path."""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from gardener.model import attention_trial, exact_attention
from gardener.model.architecture import Architecture
from gardener.model.attention import Attention, Scoring, attend
from gardener.model.attention_trial import least_lines
from gardener.model.exact_attention import BLOCK, SLACK, ExactSpan, pieces
from gardener.model.kv_cache import KVCache
from gardener.model.kv_slots import SlotTable
from gardener.model.placement import Placement, merge
from gardener.model.wide_attention import wide_attention

SIZE = 16  # of a head


class Tree:
    """A text with a tree, whose nodes have random queries, keys and values."""

    def __init__(
        self,
        seed: int,
        prompt: int,
        *,
        kv_heads: int = 2,
        group: int = 3,
        dtype: torch.dtype = torch.float32,
        window: int | None = None,
        softcap: float | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self._chance = torch.Generator().manual_seed(seed)
        self.heads, self.kv_heads, self.dtype = kv_heads * group, kv_heads, dtype
        self._attention = Attention(Scoring(0.4, softcap), window)
        least = least_lines(kv_heads, group, SIZE, torch.get_num_threads())
        assert least is not None
        self._least = least
        config = LlamaConfig(
            num_hidden_layers=2,
            hidden_size=self.heads * SIZE,
            num_attention_heads=self.heads,
            num_key_value_heads=kv_heads,
        )
        self._architecture = Architecture.from_config(config)
        self.cache = self._empty()
        self.table = SlotTable(prompt, 2000)
        self.paths = {i: list(range(i + 1)) for i in range(prompt)}
        self._made: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._alone: dict[int, Tensor] = {}  # what is known of plain decoding
        self.next = prompt
        self.alone_pieces = 0

    def _empty(self) -> KVCache:
        return KVCache(2, self._architecture, self.dtype, torch.device("cpu"))

    def _numbers(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        for row in rows:
            if row not in self._made:
                lines = torch.randn(3, self.heads, SIZE, generator=self._chance).to(self.dtype)
                self._made[row] = (lines[0], lines[1, : self.kv_heads], lines[2, : self.kv_heads])
        q, k, v = zip(*(self._made[row] for row in rows), strict=True)
        return torch.stack(q), torch.stack(k), torch.stack(v)

    def _seen(self, placement: Placement, cache: KVCache, rows: Sequence[int]) -> Tensor:
        window = self._attention.window
        span = ExactSpan(placement, cache, self.heads, self._least, windows={window})
        parts = pieces(placement, window, BLOCK)
        self.alone_pieces += sum(piece.order is not None for piece in parts)
        return span.attend(1, self._attention, *self._numbers(rows))

    def plain(self, row: int) -> Tensor:
        """What the row sees where nothing but its path was ever computed, token by token."""
        if row not in self._alone:
            path = self.paths[row]
            cache, table = self._empty(), SlotTable(len(path), 2000)
            cache.reserve(len(path))
            _, k, v = self._numbers(path)
            cache.write(1, torch.arange(len(path)), k, v)
            known = list(range(len(path) - 1))
            table.place(known, [i - 1 for i in known], known)
            at = len(known)
            self._alone[row] = self._seen(table.place([at], [at - 1], [at]), cache, [row])[0]
        return self._alone[row]

    def place(self, rows: Sequence[int]) -> Placement:
        parents = [self.paths[row][-2] if len(self.paths[row]) > 1 else -1 for row in rows]
        return self.table.place(rows, parents, [len(self.paths[row]) - 1 for row in rows])

    def run(self, *segments: Sequence[int]) -> None:
        """These rows in one pass, each of which must see what it does in plain decoding."""
        placement = merge([self.place(rows) for rows in segments])
        self.compute(placement, [row for rows in segments for row in rows])

    def compute(self, placement: Placement, rows: Sequence[int]) -> None:
        self.move(placement)
        for row, line in zip(rows, self._seen(placement, self.cache, rows), strict=True):
            assert torch.equal(line, self.plain(row)), f"row {row} at {len(self.paths[row]) - 1}"

    def move(self, placement: Placement) -> None:
        if placement.moves is not None:
            self.cache.move(placement.moves)

    def child(self, parent: int) -> int:
        row, self.next = self.next, self.next + 1
        self.paths[row] = [*self.paths[parent], row]
        return row

    def living(self) -> list[int]:
        root = self.table.root
        return [row for row, path in self.paths.items() if root in path and row >= root]

    def grow(self, rows: int) -> list[int]:
        """Children of what lives, mostly of the newest."""
        return [self.child(self.random.choice(self.living()[-6:])) for _ in range(rows)]

    def advance(self) -> None:
        here = [row for row in self.living() if row in self.table]
        if here:
            root = self.random.choice(here)
            path = self.paths[root]
            self.table.advance(path[path.index(self.table.root) : -1], root)
            self.paths = {row: path for row, path in self.paths.items() if self._lives(row, root)}

    def _lives(self, row: int, root: int) -> bool:
        return root in self.paths[row] or row in self.paths[root]


def read(tree: Tree, prompt: int, chunk: int) -> None:
    for first in range(0, prompt, chunk):
        tree.run(range(first, min(first + chunk, prompt)))


KINDS: dict[str, Any] = {
    "float32": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16, no groups": {"dtype": torch.float16, "kv_heads": 3, "group": 1},
    "one head of many": {"kv_heads": 1, "group": 4},
    "window": {"window": 70},
    "short window": {"window": 5, "kv_heads": 3, "group": 1},
    "softcap": {"softcap": 3.0},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", [3, BLOCK + SLACK - 4, 5 * BLOCK + 20])
def test_trees_in_any_slots_give_the_bits_of_plain_decoding(kind: str, prompt: int) -> None:
    tree = Tree(prompt, prompt, **KINDS[kind])
    with torch.inference_mode():
        read(tree, prompt, 150)
        for _ in range(25):
            segments = [tree.grow(tree.random.randint(1, 9)) for _ in range(2)]
            tree.run(*segments)
            tree.advance()
    assert tree.table.certain > prompt + BLOCK // 2


@pytest.mark.parametrize("window", [None, 100])
def test_a_tree_that_is_deeper_than_the_slack_and_out_of_order(window: int | None) -> None:
    tree = Tree(4, 50, window=window)
    with torch.inference_mode():
        read(tree, 50, 50)
        root = tree.table.root
        tree.run([tree.child(root)])  # takes the place of the first of the deep ones
        row = root
        for _ in range(30):
            chain = [row := tree.child(row) for _ in range(6)]
            tree.run(chain)
        assert tree.alone_pieces > 60
        # All of them are accepted and moved, and nothing is alone any more.
        path = tree.paths[row]
        tree.table.advance(path[path.index(root) : -1], row)
        tree.alone_pieces = 0
        tree.run([tree.child(row), tree.child(row)])
        assert not tree.alone_pieces


def test_moves_outlive_a_pass_that_is_not_computed() -> None:
    tree = Tree(5, 20)
    with torch.inference_mode():
        read(tree, 20, 20)
        root = tree.table.root
        first, second = tree.child(root), tree.child(root)
        tree.run([first, second])
        below = tree.child(second)
        tree.run([below])
        tree.table.advance([root], second)
        dead = tree.place([tree.child(second)])
        assert dead.moves is not None
        tree.move(dead)  # and that is all
        tree.table.advance([second], below)
        tree.run([tree.child(below)])


def test_a_text_that_is_kept_before_its_moves_are_made() -> None:
    tree = Tree(6, 90)
    with torch.inference_mode():
        read(tree, 90, 64)
        root = tree.table.root
        first, second = tree.child(root), tree.child(root)
        tree.run([first, second])
        tree.table.advance([root], second)
        tree.cache = tree.cache.kept(tree.table.keep_certain())
        assert tree.table.first(91).tolist() == list(range(91))
        row = tree.child(second)
        shared = SlotTable(92, 2000, shared=91)  # of another request, that begins with these
        tree.compute(shared.place([91], [90], [91]), [row])


def test_what_is_seen_is_what_attention_is_defined_as() -> None:
    chance = torch.Generator().manual_seed(3)
    text = 4 * BLOCK + 9
    q, k, v = (torch.randn(text, heads, SIZE, generator=chance) for heads in (6, 2, 2))
    tree = Tree(0, text)
    placement = tree.table.place(range(text), range(-1, text - 1), range(text))
    for scoring in (Scoring(0.25), Scoring(0.25, 2.0)):
        span = ExactSpan(placement, tree.cache, 6, 4)
        seen = span.attend(0, Attention(scoring), q, k, v)
        bias = torch.full((text, text), -torch.inf).triu(1)
        expected = attend(wide_attention, scoring, q, k.transpose(0, 1), v.transpose(0, 1), bias)
        torch.testing.assert_close(seen, expected, atol=3e-6, rtol=0)


def test_a_product_that_is_not_invariant_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    least_lines.cache_clear()
    real = exact_attention.seen

    def odd(*args: object) -> Tensor:
        found = real(*args)  # type: ignore[arg-type]
        return found if len(found) > 3 else found * (1 + 1e-7)

    try:
        tried = partial(least_lines, 2, 3, SIZE, torch.get_num_threads())
        assert tried() is not None
        least_lines.cache_clear()
        monkeypatch.setattr(attention_trial, "seen", odd)
        assert tried() is None
    finally:
        least_lines.cache_clear()
