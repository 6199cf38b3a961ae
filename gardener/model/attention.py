"""Attention of the rows of a forward pass, each request over its own cache.

Which slots a row is written to and sees comes from outside, as a `Placement`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.kv_cache import KVCache
from gardener.model.kv_slots import Mask, Placement, within

_MOST_SCORES = 1 << 22  # of one block of rows; more rows than that are computed in blocks


@dataclass(frozen=True)
class Scoring:
    """How products of queries and keys become scores: times `scale`, and then, if there is a
    `softcap`, bounded by it: softcap * tanh(score / softcap), as in Gemma 2."""

    scale: float
    softcap: float | None = None

    def __call__(self, products: Tensor) -> Tensor:
        """In place."""
        if self.softcap is None:
            return products.mul_(self.scale)
        return products.mul_(self.scale / self.softcap).tanh_().mul_(self.softcap)


AttentionKernel: TypeAlias = Callable[[Scoring, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Queries [kv_heads, group, rows, head_dim], keys, values and bias to what the queries see."""


@dataclass(frozen=True)
class Attention:
    """How one layer looks back. window: how far, None: all the way."""

    kernel: AttentionKernel
    scoring: Scoring
    window: int | None = None


class CachedRows(Protocol):
    """The rows first..end-1 of a forward pass, with the cache they write to and look back on."""

    @property
    def first(self) -> int: ...

    @property
    def end(self) -> int: ...

    def attend(
        self,
        layer: int,
        attention: Attention,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Tensor:
        """Store keys and values [rows, kv_heads, head_dim] of a layer; what the queries see,
        [rows, heads * head_dim]."""
        ...


@dataclass(frozen=True, eq=False)
class Span:
    """Rows of one request, which are the rows first..end-1 of the pass.

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

    @classmethod
    def of(
        cls,
        placement: Placement,
        cache: KVCache,
        device: torch.device,
        *,
        first: int = 0,
        step: int = 1,
        windows: Collection[int | None] = (None,),
    ) -> "Span":
        """The rows of a placement. Makes room for them in the cache.

        first    row of the pass at which they begin
        step     attention runs over slots in multiples of this
        windows  sliding windows of the layers that will ask
        """
        high = -(-placement.high // step) * step
        cache.reserve(high)
        biases = {}
        for window in windows:
            mask = placement.mask if window is None else within(placement, window)
            biases[window] = _bias(mask, len(placement.slots), placement.high, high, device)
        return cls(
            first=first,
            end=first + len(placement.slots),
            cache=cache,
            slots=torch.from_numpy(placement.slots).to(device),
            high=high,
            biases=biases,
        )

    def attend(
        self,
        layer: int,
        attention: Attention,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Tensor:
        self.cache.write(layer, self.slots, k, v)
        keys, values = self.cache.read(layer, self.high)
        return attend(attention, q, keys, values, self.biases[attention.window])


def _bias(
    mask: Mask | None, rows: int, high: int, width: int, device: torch.device
) -> Tensor | None:
    """A mask [rows, high] as what is added to the scores [rows, width]; None: nothing."""
    if mask is None and high == width:
        return None
    bias = np.full((rows, width), -np.inf, np.float32)
    bias[:, :high] = 0.0 if mask is None else np.where(mask, np.float32(0.0), -np.inf)
    return torch.from_numpy(bias).to(device)


def attend(
    attention: Attention, q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
) -> Tensor:
    """Queries [rows, heads, head_dim] over keys and values [kv_heads, high, head_dim].

    Returns [rows, heads * head_dim]. Each group of query heads that shares a key head is folded
    into the rows of one matrix product.
    """
    rows, heads, head_dim = q.shape
    kv_heads, high, _ = keys.shape
    folded = q.view(rows, kv_heads, heads // kv_heads, head_dim).permute(1, 2, 0, 3)
    block = max(16, _MOST_SCORES // (heads * high))
    parts = [
        attention.kernel(
            attention.scoring,
            folded[:, :, a : a + block],
            keys,
            values,
            None if bias is None else bias[a : a + block],
        )
        for a in range(0, rows, block)
    ]
    seen = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    return seen.permute(2, 0, 1, 3).reshape(rows, heads * head_dim)


def batch_invariant_attention(
    scoring: Scoring, q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
) -> Tensor:
    """Attention in plain steps with sums in float64: the order of the slots leaves no trace.

    An accepted guess sits in another slot than it would in plain decoding, so sums over slots come
    in another order. In float32 that is seen in the last bit, which decides nothing. Where numbers
    are rounded to 16 bits afterwards, here or in a quantised layer, the last bit now and then
    decides how a number is rounded, and so may decide a token. Without instructions for 16 bits it
    is also faster than scores in 16 bits: 0.33 for 1.03 ms with eight rows, nine heads of 64 and
    512 slots.
    """
    kv_heads, group, rows, head_dim = q.shape
    flat = q.reshape(kv_heads, group * rows, head_dim).double()
    scores = scoring(torch.bmm(flat, keys.double().transpose(1, 2)))
    if bias is not None:
        scores.view(kv_heads, group, rows, -1).add_(bias)
    weights = torch.softmax(scores, -1)
    return torch.bmm(weights, values.double()).to(q.dtype).view(kv_heads, group, rows, head_dim)


def softmax_attention(
    scoring: Scoring, q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
) -> Tensor:
    """Attention in plain steps, for the CPU: faster than the fused kernel from 8 rows on."""
    kv_heads, group, rows, head_dim = q.shape
    flat = q.reshape(kv_heads, group * rows, head_dim)
    scores = scoring(torch.bmm(flat, keys.transpose(1, 2)).float())
    if bias is not None:
        scores.view(kv_heads, group, rows, -1).add_(bias)
    weights = torch.softmax(scores, -1).to(q.dtype)
    return torch.bmm(weights, values).view(kv_heads, group, rows, head_dim)


def fused_attention(
    scoring: Scoring, q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
) -> Tensor:
    """Attention in one kernel, which knows no softcap: with one it is computed in plain steps."""
    if scoring.softcap is not None:
        return softmax_attention(scoring, q, keys, values, bias)
    kv_heads, group, rows, head_dim = q.shape
    mask = None if bias is None else bias.to(q.dtype).repeat(group, 1)
    seen = F.scaled_dot_product_attention(
        q.reshape(1, kv_heads, group * rows, head_dim),
        keys[None],
        values[None],
        attn_mask=mask,
        scale=scoring.scale,
    )
    return seen.view(kv_heads, group, rows, head_dim)
