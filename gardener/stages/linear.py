"""One linear layer, in the form that is fastest where it runs.

Where a row is computed alone in one run and among others in the next, its result should be the
same, or greedy text in 16 bits would depend on what was speculated. A kernel that treats a lone row
differently is found when the layer is built, and there a lone row is computed as a pair.
"""

from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_PACK_ROWS = 16  # the packed layout is chosen for segments of about this size


class Linear(Protocol):
    """Rows [n, inputs] to rows [n, outputs]."""

    nbytes: int

    def __call__(self, x: Tensor) -> Tensor: ...


def linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """The fastest form for weights [outputs, inputs] in the dtype and on the device they have."""
    packs = weight.device.type == "cpu" and _can_pack(weight.dtype)
    layer = _Packed(weight, bias) if packs else _Plain(weight, bias)
    return steadied(layer, weight.shape[1], weight.dtype, weight.device)


def steadied(layer: Linear, inputs: int, dtype: torch.dtype, device: torch.device) -> Linear:
    """See to it that in 16 bits a lone row gives what it gives among others.

    In float32 the two differ by the order of a sum, far below what decides a token.
    """
    if dtype == torch.float32:
        return layer
    rows = torch.randn(8, inputs, generator=torch.Generator().manual_seed(1))
    rows = rows.to(device, dtype)
    return layer if torch.equal(layer(rows)[:1], layer(rows[:1])) else _Paired(layer)


class _Plain:
    """The ordinary matrix product of torch."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias
        self.nbytes = weight.nbytes + (0 if bias is None else bias.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)


class _Packed:
    """Weights reordered once for the CPU by oneDNN, as torch's own compiler does.

    The ordinary product reorders them on every call. On one core of an AVX-512 machine, float32
    and bfloat16, 1 to 32 rows, this is 1.3 to 7 times faster, and a few rows cost as much as one.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _PACK_ROWS)
        self._bias = bias
        self.nbytes = weight.nbytes + (0 if bias is None else bias.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


class _Paired:
    """A layer whose kernel for one row differs from that for more: the row is computed twice."""

    def __init__(self, inner: Linear) -> None:
        self._inner = inner
        self.nbytes = inner.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return self._inner(x) if len(x) != 1 else self._inner(x.repeat(2, 1))[:1]


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Does this build of torch pack weights of this dtype on this CPU? Tried out, not guessed."""
    weight, x = torch.eye(16, dtype=dtype), torch.arange(32.0).reshape(2, 16).to(dtype)
    try:
        return torch.equal(_Packed(weight, None)(x), x)
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
