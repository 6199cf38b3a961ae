"""Attention with all sums in float64, for CPUs on which no number of rows keeps one order of sums.

See `exact_attention`, which is several times faster.
"""

import torch
from torch import Tensor

from gardener.model.attention import Scoring


def wide_attention(
    scoring: Scoring, q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None
) -> Tensor:
    """Attention in plain steps; an `attention.AttentionKernel`.

    In float64 the order of a sum, which depends on slots and on the rows beside one, is seen in
    bits that are rounded away: one number of some 10^8 rounds to another float32, and of 10^12 to
    another number of 16 bits.
    """
    kv_heads, group, rows, head_dim = q.shape
    flat = q.reshape(kv_heads, group * rows, head_dim).double()
    scores = scoring(torch.bmm(flat, keys.double().transpose(1, 2)))
    if bias is not None:
        scores.view(kv_heads, group, rows, -1).add_(bias)
    weights = torch.softmax(scores, -1)
    seen = torch.bmm(weights, values.double()).to(q.dtype)
    return seen.view(kv_heads, group, rows, head_dim)
