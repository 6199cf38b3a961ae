"""The transformer block of the Llama family, over rows of several requests at once.

Linear layers, norms and rotation run over all rows of a forward pass; attention runs per request,
each over its own cache. Masks, positions and slots come from outside. Norms compute in float32 and
cast before the weight is applied, as in transformers. Inference only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.kernels.products import Linear
from gardener.model.kv_cache import KVCache
from gardener.model.rotary import rotate

_SCORES = 1 << 22  # attention works on blocks of rows whose scores are at most so many numbers


Kernel: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Queries [kv_heads, group, rows, head_dim], keys, values and bias to what the queries see."""


class Rows(Protocol):
    """The rows first..end-1 of a forward pass, with the cache they write to and look back on."""

    @property
    def first(self) -> int: ...

    @property
    def end(self) -> int: ...

    def attend(
        self, layer: int, window: int | None, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        """Store keys and values [rows, kv_heads, head_dim] of a layer; what the queries see,
        [rows, heads * head_dim]."""
        ...


@dataclass(frozen=True, eq=False)
class Span:
    """Rows of one request.

    slots   [rows] int64, where their keys and values go
    high    they see none but slots 0..high-1
    biases  by sliding window (None: no window): [rows, high] float32, 0 where a row sees and
            -inf where it does not; None: every row sees every slot
    """

    first: int
    end: int
    cache: KVCache
    slots: Tensor
    high: int
    biases: Mapping[int | None, Tensor | None]

    def attend(
        self, layer: int, window: int | None, kernel: Kernel, q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        self.cache.write(layer, self.slots, k, v)
        keys, values = self.cache.read(layer, self.high)
        return attention(kernel, q, keys, values, self.biases[window])


@dataclass(frozen=True, eq=False)
class BlockWeights:
    """The weights of one layer; q, k, v are one linear layer, and so are gate and up.

    attention_norm: None in a draft head, which brings its own input to `Block.attend`.
    """

    attention_norm: Tensor | None
    qkv: Linear
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        norms = (self.attention_norm, self.mlp_norm, self.q_norm, self.k_norm)
        return sum(part.nbytes for part in (self.qkv, self.out, self.gate_up, self.down)) + sum(
            norm.nbytes for norm in norms if norm is not None
        )


class Block:
    """One layer, the `index`th of its stage. `steady`: see `_steady_attention`."""

    def __init__(
        self,
        shape: Architecture,
        weights: BlockWeights,
        index: int,
        window: int | None,
        *,
        steady: bool,
    ) -> None:
        self._shape, self._weights, self._index, self._window = shape, weights, index, window
        self._kernel = _steady_attention if steady else _softmax_attention

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._weights.nbytes

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, spans: Sequence[Rows]) -> Tensor:
        """Hidden states [rows, width] to hidden states."""
        norm = self._weights.attention_norm
        normed = x if norm is None else rms_norm(x, norm, self._shape.eps)
        return self.feed(x + self.attend(normed, cos, sin, spans))

    def feed(self, x: Tensor) -> Tensor:
        """The second half of the layer: [rows, width] to the same."""
        w = self._weights
        gate, up = w.gate_up(rms_norm(x, w.mlp_norm, self._shape.eps)).chunk(2, -1)
        return x + w.down(F.silu(gate) * up)

    def attend(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        spans: Sequence[Rows],
        exchange: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Attention alone: what q, k and v read, [rows, inputs], to [rows, width]. `exchange` may
        put others in the place of the keys [rows, kv_heads, head_dim], before they are rotated."""
        shape, w = self._shape, self._weights
        heads, kv_heads = shape.heads, shape.kv_heads
        qkv = w.qkv(x)
        qkv = qkv.view(len(qkv), heads + 2 * kv_heads, shape.head_dim)
        qk, v = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
        if w.q_norm is not None and w.k_norm is not None:
            q = rms_norm(qk[:, :heads], w.q_norm, shape.eps)
            qk = torch.cat((q, rms_norm(qk[:, heads:], w.k_norm, shape.eps)), 1)
        if exchange is not None:
            qk = torch.cat((qk[:, :heads], exchange(qk[:, heads:])), 1)
        qk = rotate(qk, cos, sin)
        q, k = qk[:, :heads], qk[:, heads:]
        kernel = self._kernel if qk.device.type == "cpu" else _fused_attention
        seen = []
        for span in spans:
            rows = slice(span.first, span.end)
            seen.append(span.attend(self._index, self._window, kernel, q[rows], k[rows], v[rows]))
        return w.out(seen[0] if len(seen) == 1 else torch.cat(seen))


def run_blocks(
    blocks: Sequence[Block],
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    spans: Sequence[Rows],
    cancelled: Callable[[], bool],
    taps: dict[int, Tensor | None],
) -> Tensor | None:
    """Hidden states [rows, width] through all blocks; None if `cancelled` fires on the way.

    What enters the blocks whose indices are in `taps` is put there.
    """
    for index, block in enumerate(blocks):
        if cancelled():
            return None
        if index in taps:
            taps[index] = x
        x = block(x, cos, sin, spans)
    return x


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale the last dimension to a root mean square of one, then by `weight`."""
    wide = x.float()
    scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return weight * (wide * scale).to(x.dtype)


def attention(
    kernel: Kernel, q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
) -> Tensor:
    """Queries [rows, heads, head_dim] over keys and values [kv_heads, high, head_dim].

    Returns [rows, heads * head_dim]. Each group of query heads that shares a key head is folded
    into the rows of one matrix product.
    """
    rows, heads, head_dim = q.shape
    kv_heads, high, _ = keys.shape
    folded = q.view(rows, kv_heads, heads // kv_heads, head_dim).permute(1, 2, 0, 3)
    block = max(16, _SCORES // (heads * high))
    parts = [
        kernel(
            folded[:, :, a : a + block], keys, values, None if bias is None else bias[a : a + block]
        )
        for a in range(0, rows, block)
    ]
    seen = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    return seen.permute(2, 0, 1, 3).reshape(rows, heads * head_dim)


def _steady_attention(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Attention in plain steps with sums in float64: the order of the slots leaves no trace.

    An accepted guess sits in another slot than it would in plain decoding, so sums over slots come
    in another order. In float32 that is seen in the last bit, which decides nothing. Where numbers
    are rounded to 16 bits afterwards, here or in a quantised layer, the last bit now and then
    decides how, and that a token. Without instructions for 16 bits it is also faster than scores
    in 16 bits: 0.33 for 1.03 ms with eight rows, nine heads of 64 and 512 slots.
    """
    kv_heads, group, rows, head_dim = q.shape
    flat = q.reshape(kv_heads, group * rows, head_dim).double().mul_(head_dim**-0.5)
    scores = torch.bmm(flat, keys.double().transpose(1, 2))
    if bias is not None:
        scores.view(kv_heads, group, rows, -1).add_(bias)
    weights = torch.softmax(scores, -1)
    return torch.bmm(weights, values.double()).to(q.dtype).view(kv_heads, group, rows, head_dim)


def _softmax_attention(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Attention in plain steps, for the CPU: faster than the fused kernel from 8 rows on."""
    kv_heads, group, rows, head_dim = q.shape
    flat = q.reshape(kv_heads, group * rows, head_dim)
    scores = torch.bmm(flat, keys.transpose(1, 2)).float().mul_(head_dim**-0.5)
    if bias is not None:
        scores.view(kv_heads, group, rows, -1).add_(bias)
    weights = torch.softmax(scores, -1).to(q.dtype)
    return torch.bmm(weights, values).view(kv_heads, group, rows, head_dim)


def _fused_attention(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Attention in one kernel, q [kv_heads, group, rows, head_dim]."""
    kv_heads, group, rows, head_dim = q.shape
    mask = None if bias is None else bias.to(q.dtype).repeat(group, 1)
    seen = F.scaled_dot_product_attention(
        q.reshape(1, kv_heads, group * rows, head_dim), keys[None], values[None], attn_mask=mask
    )
    return seen.view(kv_heads, group, rows, head_dim)
