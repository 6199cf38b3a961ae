"""A layer in two graphs is the layer, and a row of it the same bits in any batch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from gardener.model.architecture import Architecture
from gardener.model.attention import Span
from gardener.model.block import Block, BlockWeights, Layer
from gardener.model.feed_forward import Dense
from gardener.model.fused_block import FusedBlock
from gardener.model.kernels.grouped_linear import grouped_linear
from gardener.model.kernels.onnx_graph import GroupedAffine
from gardener.model.kernels.onnx_halves import GroupedLayer
from gardener.model.kernels.rounding import rounded
from gardener.model.kv_cache import KVCache
from gardener.model.kv_slots import Placement
from gardener.model.look_back import LookBack
from gardener.model.rotary import Rotary

KINDS = [kind for kind in tiny.CONFIGS if kind not in ("mixtral", "qwen3-moe")]
CPU = torch.device("cpu")
ROWS = 40


def architecture(kind: str, width: int = 64, inner: int = 96) -> Architecture:
    config_class, own = tiny.CONFIGS[kind]
    changed = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": width // 8}
    return Architecture.from_config(config_class(**{**tiny.SIZES, **own, **changed}))


class Weights:
    """Random ones of one layer."""

    def __init__(self, s: Architecture) -> None:
        self._draw = torch.Generator().manual_seed(5)
        queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
        whole = s.norms == "after"
        self.norms = {
            field: 1 + 0.2 * torch.randn(size, generator=self._draw)
            for field, size, there in (
                ("attention_norm", s.width, s.norms != "after"),
                ("out_norm", s.width, s.norms != "before"),
                ("mlp_norm", s.width, s.norms != "after"),
                ("down_norm", s.width, s.norms != "before"),
                ("q_norm", queries if whole else s.head_dim, s.qk_norm),
                ("k_norm", keys if whole else s.head_dim, s.qk_norm),
            )
            if there
        }
        self.qkv = self._affine([queries, keys, keys], s.width, s.qkv_bias)
        self.out = self._affine([s.width], queries, s.out_bias)
        self.gate_up = self._affine([2 * s.inner], s.width, s.mlp_bias)
        self.down = self._affine([s.width], s.inner, s.mlp_bias)

    def _affine(self, outputs: list[int], inputs: int, bias: bool) -> GroupedAffine:
        parts = [
            rounded(torch.randn(n, inputs, generator=self._draw) * inputs**-0.5, bits, 32)
            for n, bits in zip(outputs, (4, 8, 8), strict=False)
        ]
        added = torch.randn(sum(outputs), generator=self._draw) if bias else None
        return GroupedAffine(parts, added)

    def fused(self, s: Architecture, layer: int = 0) -> FusedBlock:
        made = GroupedLayer(self.qkv, self.out, self.gate_up, self.down, self.norms)
        return FusedBlock(s, made, look(s, layer), s.rope_of[layer])

    def plain(self, s: Architecture, layer: int = 0) -> Block:
        def linear(affine: GroupedAffine) -> Any:
            return grouped_linear(affine.parts, affine.bias)

        weights = BlockWeights(
            qkv=linear(self.qkv),
            out=linear(self.out),
            feed_forward=Dense(linear(self.gate_up), linear(self.down), s.activation),
            **self.norms,
        )
        return Block(s, weights, look(s, layer), s.rope_of[layer])


def look(s: Architecture, layer: int) -> LookBack:
    return LookBack(s, 0, s.windows[layer], batch_invariant=True)


def computed(s: Architecture, block: Layer, x: Tensor, rows: range, window: int | None) -> Tensor:
    """These rows of x in one pass, after all before them in another."""
    y = x[:0]
    cache = KVCache(1, s, x.dtype, CPU)
    rotary = Rotary(s, x.dtype, CPU)
    for part in (range(rows.start), rows):
        if part:
            positions = np.arange(part.start, part.stop, dtype=np.int64)
            mask = np.tri(len(part), part.stop, part.start, dtype=np.bool_)
            everything = np.arange(part.stop, dtype=np.int64)
            placement = Placement(positions, mask, part.stop, positions, everything)
            span = Span.of(placement, cache, CPU, windows={window})
            rotations = rotary.at(torch.from_numpy(positions), part.stop - 1)
            y = block(x[part.start : part.stop], rotations, [span])
    return y


@pytest.fixture(params=[1, 3])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_it_computes_what_its_operations_do(kind: str) -> None:
    s = architecture(kind)
    weights = Weights(s)
    x = torch.randn(ROWS, s.width, generator=torch.Generator().manual_seed(1))
    for layer in range(2):  # of families whose layers differ
        window = s.windows[layer]
        ours = computed(s, weights.fused(s, layer), x, range(30, ROWS), window)
        theirs = computed(s, weights.plain(s, layer), x, range(30, ROWS), window)
        # Now and then a last bit decides how a number of a row is rounded to 8 bits.
        assert (ours - theirs).abs().max() < 0.02 * (theirs - x[30:]).abs().max()


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["smollm", "biased", "qwen3", "gemma2", "phi4-mini", "olmo2"])
@torch.inference_mode()
def test_a_row_has_the_same_bits_in_any_batch(kind: str, dtype: torch.dtype) -> None:
    s = architecture(kind, 288, 1056)
    block = Weights(s).fused(s)
    x = torch.randn(ROWS, s.width, generator=torch.Generator().manual_seed(2)).to(dtype)
    whole = computed(s, block, x, range(ROWS), s.windows[0])
    for first, end in ((3, 4), (17, 34), (0, 2), (5, 8), (20, 25), (39, 40)):
        some = computed(s, block, x, range(first, end), s.windows[0])
        assert torch.equal(some, whole[first:end])
