"""One linear layer, in the form that is fastest where it runs.

Where a row is computed alone in one run and among others in the next, its result should be the
same, or greedy text in 16 bits would depend on what was speculated. A kernel that treats a lone row
differently is found when the layer is built, and there a lone row is computed as a pair.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

_PACK_ROWS = 16  # the packed layout is chosen for segments of about this size


class Linear(Protocol):
    """Rows [n, inputs] to rows [n, outputs]."""

    nbytes: int

    def __call__(self, x: Tensor) -> Tensor: ...


Make: TypeAlias = Callable[[Tensor, Tensor | None], Linear]


def linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """The fastest form for weights [outputs, inputs] in the dtype and on the device they have."""
    packs = weight.device.type == "cpu" and _can_pack(weight.dtype)
    return steadied(_Packed if packs else _Plain, weight, bias)


def steadied(make: Make, weight: Tensor, bias: Tensor | None) -> Linear:
    """What `make` makes, such that in 16 bits a lone row gives what it gives among others.

    In float32 the two differ by the order of a sum, far below what decides a token.
    """
    layer = make(weight, bias)
    sixteen = weight.dtype != torch.float32
    if sixteen and _minds_company(make, weight.shape[1], weight.dtype, weight.device):
        return _Paired(layer)
    return layer


@cache
def _minds_company(make: Make, inputs: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Does this kernel add up a lone row in another order than a row among others?

    Tried on sums whose terms cancel out, in blocks of 64 with weights i and i + 32 alike: what is
    left is the error of the order itself, where ordinary sums would mostly round it away.
    """
    random = torch.Generator().manual_seed(1)
    blocks = max(inputs // 64, 1)
    weight = torch.randn(64, blocks, 1, 32, generator=random).repeat(1, 1, 2, 1)
    half = torch.randn(8, blocks, 1, 32, generator=random)
    rows = torch.cat((half, -half), 2)
    weight, rows = (F.pad(t.flatten(1), (0, inputs))[:, :inputs] for t in (weight, rows))
    weight, rows = weight.to(device, dtype), rows.to(device, dtype)
    layer = make(weight, None)
    return not torch.equal(layer(rows)[:1], layer(rows[:1]))


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
def quick_dtype(device: str) -> str:
    """bfloat16 or float32: in which of them this device multiplies faster. Tried out: a processor
    without instructions for 16 bits takes several times as long with them."""
    seconds = {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        x = torch.ones(256, 1024, device=device, dtype=dtype)
        weight = torch.ones(1024, 1024, device=device, dtype=dtype)
        for _ in range(3):  # the first one finds its kernel
            begin = time.perf_counter()
            F.linear(x, weight).sum().item()
            seconds[name] = time.perf_counter() - begin
    return min(seconds, key=lambda name: seconds[name])


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Does this build of torch pack weights of this dtype on this CPU? Tried out, not guessed."""
    weight, x = torch.eye(16, dtype=dtype), torch.arange(32.0).reshape(2, 16).to(dtype)
    try:
        return torch.equal(_Packed(weight, None)(x), x)
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
