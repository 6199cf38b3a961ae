"""What filled rows see: attention as it is defined, with bits that tell nothing of the pass."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from recorders import Launches
from token_trees import TokenTree
from torch import Tensor
from transformers import LlamaConfig

from gardener.errors import LocalError
from gardener.model.architecture import Architecture
from gardener.model.attention import Attention, Scoring
from gardener.model.device import look
from gardener.model.device.look import FilledRows, efficient, kernel_for
from gardener.model.device.sizes import CHUNK, ROWS, chunks, cut_of, filled
from gardener.model.device.tails import deep, order, table
from gardener.model.kv_cache import KVCache
from gardener.model.kv_slots import SlotTable
from gardener.model.placement import Placement

CPU = torch.device("cpu")
SIZE = 16  # of a head
SLOTS = 4 * CHUNK + 1


@dataclass
class Kind:
    """Of heads and of what they see."""

    kv_heads: int = 2
    group: int = 3
    window: int | None = None
    softcap: float | None = None
    dtype: torch.dtype = torch.float32

    @property
    def attention(self) -> Attention:
        return Attention(Scoring(0.4, self.softcap), self.window)

    def empty(self) -> KVCache:
        config = LlamaConfig(
            num_hidden_layers=2,
            hidden_size=self.kv_heads * self.group * SIZE,
            num_attention_heads=self.kv_heads * self.group,
            num_key_value_heads=self.kv_heads,
        )
        cache = KVCache(2, Architecture.from_config(config), self.dtype, CPU)
        cache.reserve(SLOTS)
        return cache


class Seen:
    """A text with a tree: queries, keys and values of its rows are random numbers."""

    def __init__(self, kind: Kind, seed: int, prompt: int) -> None:
        self.kind, self.tree = kind, TokenTree(random.Random(seed), prompt)
        chance = torch.Generator().manual_seed(seed)
        size = (3, prompt + 400, kind.kv_heads * kind.group, SIZE)
        q, k, v = torch.randn(size, generator=chance).to(kind.dtype)
        self.numbers = q, k[:, : kind.kv_heads], v[:, : kind.kv_heads]
        self.cache = kind.empty()
        self.paths: dict[int, Sequence[int]] = {}
        self.deep = 0

    def run(self, placement: Placement, rows: Sequence[int], more: int = 0) -> Tensor:
        """What these rows see, filled up, with `more` steps of chunks than there must be."""
        alone = deep(placement)
        pieces = [[i] for i in range(len(rows))] if alone.any() else [[*range(len(rows))]]
        return torch.cat(
            [self._piece(placement.take(piece), rows, piece, more) for piece in pieces]
        )

    def _piece(
        self, placement: Placement, rows: Sequence[int], piece: list[int], more: int
    ) -> Tensor:
        size = filled(len(piece), (1, *ROWS))
        slots = None
        if deep(placement).any():
            self.deep += 1
            slots = torch.from_numpy(order(placement))
        settled = cut_of(int(placement.positions.max()))
        span = FilledRows(
            torch.from_numpy(table(placement, size, SLOTS - 1)),
            self.cache,
            min(chunks(settled, SLOTS) + more, 4),
            order=slots,
        )
        own = [rows[i] for i in piece] + [-1] * (size - len(piece))
        seen = span.attend(1, self.kind.attention, *(each[own] for each in self.numbers))
        assert (span.first, span.end) == (0, size)
        return seen[: len(piece)]

    def defined(self, row: int) -> Tensor:
        """What attention is, over the path of a row."""
        path = self.tree.paths[row]
        if self.kind.window is not None:
            path = path[-self.kind.window :]
        q, k, v = (each.double() for each in self.numbers)
        heads = q[row].view(self.kind.kv_heads, self.kind.group, SIZE)
        scores = torch.einsum("hgd,phd->hgp", heads, k[path])
        weights = self.kind.attention.scoring(scores).softmax(-1)
        return torch.einsum("hgp,phd->hgd", weights, v[path]).flatten()

    def alone(self, row: int) -> Tensor:
        """The row in a cache where nothing but its path stands, in order."""
        path = self.tree.paths[row]
        cache, last = self.kind.empty(), len(path) - 1
        _, k, v = self.numbers
        cache.write(1, torch.arange(len(path)), k[path], v[path])
        known, slots = list(range(last)), SlotTable(last + 1, 2000)
        slots.place(known, [i - 1 for i in known], known)
        placement = slots.place([last], [last - 1], [last])
        count = chunks(cut_of(last), SLOTS)
        span = FilledRows(torch.from_numpy(table(placement, 1, SLOTS - 1)), cache, count)
        return span.attend(1, self.kind.attention, *(each[[row]] for each in self.numbers))[0]

    def check(self, placement: Placement, rows: Sequence[int]) -> None:
        if placement.moves is not None:
            self.cache.move(placement.moves)
        seen = self.run(placement, rows)
        assert seen.dtype == self.kind.dtype
        exact = torch.stack([self.defined(row) for row in rows])
        close = {torch.float32: 3e-7, torch.bfloat16: 2e-2, torch.float16: 2e-3}[self.kind.dtype]
        torch.testing.assert_close(seen.double(), exact, atol=close, rtol=close)
        assert torch.equal(self.run(placement, rows, more=2), seen)
        for i in self.tree.random.sample(range(len(rows)), min(4, len(rows))):
            assert torch.equal(seen[i], self.alone(rows[i])), f"row {rows[i]}"


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
@pytest.mark.parametrize("prompt", [3, 92, 2 * CHUNK + 17])
def test_trees_in_any_slots(kind: str, prompt: int) -> None:
    seen = Seen(Kind(**KINDS[kind]), prompt, prompt)
    tree = seen.tree
    with torch.inference_mode():
        while tree.read < prompt:
            placement, rows = tree.prompts(128)
            part = seen.run(placement, rows)
            assert torch.equal(part[-1], seen.alone(rows[-1]))
        for _ in range(4):
            seen.check(*tree.grow(tree.random.randint(1, 12), tree.random.randint(1, 12)))
            seen.check(*tree.again(3))
            tree.advance()


@pytest.mark.parametrize("window", [None, 100])
def test_rows_of_a_tree_that_is_deeper_than_a_tail(window: int | None) -> None:
    seen = Seen(Kind(window=window), 1, 50)
    with torch.inference_mode():
        seen.check(*seen.tree.prompts(50))
        seen.check(*seen.tree.grow(1, 1))
        for _ in range(10):
            seen.check(*seen.tree.grow(11, newest=1))
    assert seen.deep > 60


def test_layers_of_a_pass_share_what_is_seen_by_window() -> None:
    seen = Seen(Kind(), 1, 300)
    placement, _ = seen.tree.prompts(128)
    span = FilledRows(torch.from_numpy(table(placement, 128, SLOTS - 1)), seen.cache, 1)
    numbers = [each[:128] for each in seen.numbers]
    for window in (None, 20):
        seen.kind.window = window
        parts = [span.attend(layer, seen.kind.attention, *numbers) for layer in (0, 1)]
        assert torch.equal(*parts)
        torch.testing.assert_close(parts[0][100].double(), seen.defined(100), atol=3e-7, rtol=3e-7)


def test_rows_behind_others_of_the_pass_say_where_they_begin() -> None:
    seen = Seen(Kind(), 1, 16)
    placement, _ = seen.tree.prompts(16)
    span = FilledRows(torch.from_numpy(table(placement, 32, 9)), seen.cache, 0, first=16)
    assert (span.first, span.end) == (16, 48)


def test_chunks_that_a_cache_does_not_hold_are_named() -> None:
    seen = Seen(Kind(), 1, 16)
    placement, _ = seen.tree.prompts(16)
    span = FilledRows(torch.from_numpy(table(placement, 16, 20)), seen.cache, 9)
    with pytest.raises(LocalError, match="2304 slots of a cache that has"):
        span.attend(0, seen.kind.attention, *(each[:16] for each in seen.numbers))
    ints, slots = torch.from_numpy(table(placement.take([0]), 1, 20)), torch.arange(CHUNK + 1)
    with pytest.raises(LocalError, match="257 rows of text in 1 chunks of 256"):
        FilledRows(ints, seen.cache, 1, order=slots)


def test_which_kernel_a_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "_has_efficient", lambda device, dtype: dtype == torch.float16)
    cuda, plain, capped = torch.device("cuda"), Scoring(0.4), Scoring(0.4, 3.0)
    assert kernel_for(cuda, torch.float16, plain) is efficient
    assert kernel_for(cuda, torch.bfloat16, plain) is not efficient
    for device, scoring in ((CPU, plain), (cuda, capped), (torch.device("mps"), plain)):
        assert kernel_for(device, torch.float16, scoring) is not efficient


def test_a_kernel_is_tried_in_the_dtype_in_which_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GPUs before Ampere have none in bfloat16."""

    def of_turing(q: Tensor, *others: object) -> None:
        if q.dtype == torch.bfloat16:
            raise RuntimeError("cutlassF: no kernel found to launch!")

    monkeypatch.setattr(look, "efficient", of_turing)
    has = look._has_efficient.__wrapped__
    dtypes = torch.float32, torch.float16, torch.bfloat16
    assert [has(CPU, dtype) for dtype in dtypes] == [True, True, False]


def no_kernel(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    batch, heads, lines, head_dim = q.shape
    assert (k.shape, v.shape) == 2 * ((batch, heads, k.shape[2], head_dim),)
    assert bias.shape == (batch, heads, lines, k.shape[2])
    out = torch.empty(batch, lines, heads, head_dim).transpose(1, 2)  # as of the kernel on CUDA
    return out, torch.empty(batch, heads, lines + 8)[..., :lines]


WRITE, GATHER = ["index_copy_"] * 2, ["index_select"] * 2
MERGE = ["cat", "_softmax", "mul"]


@pytest.mark.parametrize(
    ("group", "count", "names"),
    [
        (3, 2, [*WRITE, *GATHER, "clone", *MERGE, "sum", "addcmul"]),
        (3, 1, [*WRITE, *GATHER, "clone", *MERGE, "addcmul"]),
        (1, 2, [*WRITE, *GATHER, *MERGE, "sum", "addcmul"]),
        (3, 0, [*WRITE, *GATHER, "clone"]),
        (1, 0, [*WRITE, *GATHER]),
    ],
)
def test_a_layer_starts_few_kernels(group: int, count: int, names: list[str]) -> None:
    seen = Seen(Kind(group=group), 1, 16)
    placement, _ = seen.tree.prompts(16)
    ints = torch.from_numpy(table(placement, 16, SLOTS - 1))
    span = FilledRows(ints, seen.cache, count, choose=lambda *asked: no_kernel)
    numbers = [each[:16] for each in seen.numbers]
    span.attend(0, seen.kind.attention, *numbers)
    with Launches() as launches:
        span.attend(1, seen.kind.attention, *numbers)
    assert launches.names == names
