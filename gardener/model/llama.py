"""The transformer block of the Llama family, over rows of several requests at once.

Linear layers, norms and rotation run over all rows of a forward pass; attention runs per request,
each over its own cache (`attention.Span`). Norms compute in float32 and cast before the weight is
applied, as in transformers. Inference only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.attention import (
    CachedRows,
    batch_invariant_attention,
    fused_attention,
    softmax_attention,
)
from gardener.model.kernels.interface import Linear
from gardener.model.rotary import rotate


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
    """One layer, the `index`th of its stage. `batch_invariant`: whether its attention must be."""

    def __init__(
        self,
        architecture: Architecture,
        weights: BlockWeights,
        index: int,
        window: int | None,
        *,
        batch_invariant: bool,
    ) -> None:
        self._architecture, self._weights = architecture, weights
        self._index, self._window = index, window
        self._on_cpu = batch_invariant_attention if batch_invariant else softmax_attention

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._weights.nbytes

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, spans: Sequence[CachedRows]) -> Tensor:
        """Hidden states [rows, width] to hidden states."""
        norm = self._weights.attention_norm
        normed = x if norm is None else rms_norm(x, norm, self._architecture.eps)
        return self.feed(x + self.attend(normed, cos, sin, spans))

    def feed(self, x: Tensor) -> Tensor:
        """The second half of the layer: [rows, width] to the same."""
        w = self._weights
        gate, up = w.gate_up(rms_norm(x, w.mlp_norm, self._architecture.eps)).chunk(2, -1)
        return x + w.down(F.silu(gate) * up)

    def attend(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        spans: Sequence[CachedRows],
        exchange: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Attention alone: what q, k and v read, [rows, inputs], to [rows, width]. `exchange` may
        put others in the place of the keys [rows, kv_heads, head_dim], before they are rotated."""
        architecture, w = self._architecture, self._weights
        heads, kv_heads = architecture.heads, architecture.kv_heads
        qkv = w.qkv(x)
        qkv = qkv.view(len(qkv), heads + 2 * kv_heads, architecture.head_dim)
        qk, v = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
        if w.q_norm is not None and w.k_norm is not None:
            q = rms_norm(qk[:, :heads], w.q_norm, architecture.eps)
            qk = torch.cat((q, rms_norm(qk[:, heads:], w.k_norm, architecture.eps)), 1)
        if exchange is not None:
            qk = torch.cat((qk[:, :heads], exchange(qk[:, heads:])), 1)
        qk = rotate(qk, cos, sin)
        q, k = qk[:, :heads], qk[:, heads:]
        kernel = self._on_cpu if qk.device.type == "cpu" else fused_attention
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
    spans: Sequence[CachedRows],
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
