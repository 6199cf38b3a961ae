"""What the rows of a pass see of their texts in one layer, each request's over its own cache."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.attention import Attention, CachedRows, Scoring


class LookBack:
    """The attention of one layer, the `index`th of its stage. window: how far it sees back; None:
    all the way."""

    def __init__(self, architecture: Architecture, index: int, window: int | None = None) -> None:
        self._heads, self._index = architecture.heads, index
        scale = architecture.head_dim**-0.5 if architecture.scale is None else architecture.scale
        self._attention = Attention(Scoring(scale, architecture.softcap), window)

    def __call__(self, qk: Tensor, v: Tensor, spans: Sequence[CachedRows]) -> Tensor:
        """Queries and keys [rows, heads + kv_heads, head_dim] and values [rows, kv_heads, head_dim]
        to what the queries see, [rows, heads * head_dim]. Keys and values are stored."""
        q, k = qk[:, : self._heads], qk[:, self._heads :]
        if len(spans) == 1:
            return spans[0].attend(self._index, self._attention, q, k, v)
        seen = []
        for span in spans:
            rows = slice(span.first, span.end)
            seen.append(span.attend(self._index, self._attention, q[rows], k[rows], v[rows]))
        return torch.cat(seen)
