"""The attention kernels of CUDA, which the processor does not have: summed in float64."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stand_in.aliases import CUDA
from stand_in.operations import aten
from stand_in.runtime import NotImitated


def _attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """What it gives, and the logarithm of what its weights were divided by."""
    groups = q.shape[1] // k.shape[1]
    k, v = (part.double().repeat_interleave(groups, 1) for part in (k, v))
    scores = q.double() @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~allowed, float("-inf"))
    if bias is not None:
        scores = scores + bias
    total = scores.logsumexp(-1)
    return (scores - total[..., None]).exp() @ v, total


def efficient(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    wants_total: bool,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    """Its totals are filled up to 32 rows, here with what is no number."""
    _without_dropout(dropout)
    out, total = _attention(q, k, v, bias, scale, causal)
    if not wants_total:
        return out, None, None, None
    filled = torch.full((*total.shape[:2], -(-total.shape[2] // 32) * 32), float("nan"))
    filled[..., : total.shape[2]] = total
    return out, filled, None, None


def flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout: float = 0.0,
    causal: bool = False,
    debug: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    _without_dropout(dropout)
    return *_attention(q, k, v, None, scale, causal), *([None] * 7)


def cudnn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    wants_total: bool,
    dropout: float = 0.0,
    causal: bool = False,
    debug: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    _without_dropout(dropout)
    out, total = _attention(q, k, v, bias, scale, causal)
    return out, total[..., None], *([None] * 7)


def cudnn_outputs(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Any, ...]:
    """What it gives, without values: cuDNN asks more of a device than there is here."""
    out = torch.empty(*q.shape[:3], v.shape[3], dtype=q.dtype, device=CUDA)
    total = torch.empty(*q.shape[:3], 1, device=CUDA)
    nothing = [torch.empty(0, device=CUDA) for _ in range(5)]
    return out, total, *nothing[:2], q.shape[2], k.shape[2], *nothing[2:]


def _without_dropout(dropout: float) -> None:
    if dropout:
        raise NotImitated("dropout, for which CUDA draws random numbers of its own")


ATTENTION: dict[Any, Callable[..., Any]] = {
    aten._scaled_dot_product_efficient_attention: efficient,
    aten._scaled_dot_product_flash_attention: flash,
    aten._scaled_dot_product_cudnn_attention: cudnn,
}
