"""A layer of a model, over rows of several requests at once.

Linear layers, norms and rotation run over all rows of a forward pass; attention runs per request,
each over its own cache (`attention.CachedRows`). What sets families apart from Llama are parts that
are there or not: see `architecture.Architecture`. Inference only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.attention import CachedRows
from gardener.model.feed_forward import FeedForward
from gardener.model.kernels.interface import Linear
from gardener.model.look_back import LookBack
from gardener.model.norm import rms_norm
from gardener.model.rotary import Rotations, rotate


@dataclass(frozen=True, eq=False)
class BlockWeights:
    """The weights of one layer; q, k, v are one linear layer.

    attention_norm   of what attention reads, if there is one; a draft head brings its own input to
                     `Block.attend`
    out_norm         of what attention gives
    mlp_norm         of what the feed-forward part reads
    down_norm        of what it gives
    q_norm, k_norm   [head_dim] of each head, or over all heads at once
    """

    qkv: Linear
    out: Linear
    feed_forward: FeedForward
    attention_norm: Tensor | None = None
    out_norm: Tensor | None = None
    mlp_norm: Tensor | None = None
    down_norm: Tensor | None = None
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        norms = (self.attention_norm, self.out_norm, self.mlp_norm, self.down_norm)
        parts = (self.qkv, self.out, self.feed_forward, *norms, self.q_norm, self.k_norm)
        return sum(part.nbytes for part in parts if part is not None)


class Layer(Protocol):
    """One layer of a stage."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...

    def __call__(self, x: Tensor, rotations: Rotations, spans: Sequence[CachedRows]) -> Tensor:
        """Hidden states [rows, width] to hidden states."""
        ...


class Block:
    """A layer that is computed operation by operation."""

    def __init__(
        self,
        architecture: Architecture,
        weights: BlockWeights,
        look: LookBack,
        rope: int | None = 0,
    ) -> None:
        """`rope`: which rotary embedding it has; None: none."""
        self._architecture, self._weights = architecture, weights
        self._look, self._rope = look, rope

    @property
    def nbytes(self) -> int:
        """See `Layer`."""
        return self._weights.nbytes

    def __call__(self, x: Tensor, rotations: Rotations, spans: Sequence[CachedRows]) -> Tensor:
        """See `Layer`."""
        w = self._weights
        seen = self.attend(self._normed(x, w.attention_norm), rotations, spans)
        return self.feed(self._added(x, self._normed(seen, w.out_norm)))

    def feed(self, x: Tensor) -> Tensor:
        """The second half of the layer: [rows, width] to the same."""
        w = self._weights
        made = w.feed_forward(self._normed(x, w.mlp_norm))
        return self._added(x, self._normed(made, w.down_norm))

    def attend(
        self,
        x: Tensor,
        rotations: Rotations,
        spans: Sequence[CachedRows],
        exchange: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Attention alone: what q, k and v read, [rows, inputs], to [rows, width]. `exchange` may
        put others in the place of the keys [rows, kv_heads, head_dim], before they are rotated."""
        architecture, w = self._architecture, self._weights
        heads, kv_heads = architecture.heads, architecture.kv_heads
        qkv = w.qkv(x)
        qkv = qkv.view(len(qkv), heads + 2 * kv_heads, architecture.head_dim)
        qk, v = qkv.split_with_sizes((heads + kv_heads, kv_heads), 1)
        if w.q_norm is not None and w.k_norm is not None:
            q = self._normed_heads(qk[:, :heads], w.q_norm)
            qk = torch.cat((q, self._normed_heads(qk[:, heads:], w.k_norm)), 1)
        if exchange is not None:
            qk = torch.cat((qk[:, :heads], exchange(qk[:, heads:])), 1)
        if self._rope is not None:
            qk = rotate(qk, rotations[self._rope])
        return w.out(self._look(qk, v, spans))

    def _normed(self, x: Tensor, norm: Tensor | None) -> Tensor:
        return x if norm is None else rms_norm(x, norm, self._architecture.eps)

    def _normed_heads(self, x: Tensor, norm: Tensor) -> Tensor:
        """[rows, heads, head_dim]; a longer norm is one over all heads, as in OLMo 2."""
        if len(norm) == x.shape[-1]:
            return rms_norm(x, norm, self._architecture.eps)
        return rms_norm(x.flatten(1), norm, self._architecture.eps).view_as(x)

    def _added(self, x: Tensor, more: Tensor) -> Tensor:
        scale = self._architecture.residual_scale
        return x + more if scale == 1.0 else x + more * scale


def run_blocks(
    blocks: Sequence[Layer],
    x: Tensor,
    rotations: Rotations,
    spans: Sequence[CachedRows],
    stopped: Callable[[int], bool],
    taps: dict[int, Tensor | None],
) -> Tensor | None:
    """Hidden states [rows, width] through all blocks; None if `stopped`, which is asked with the
    index of each block before it is computed, says so.

    What enters the blocks whose indices are in `taps` is put there.
    """
    for index, block in enumerate(blocks):
        if stopped(index):
            return None
        if index in taps:
            taps[index] = x
        x = block(x, rotations, spans)
    return x
