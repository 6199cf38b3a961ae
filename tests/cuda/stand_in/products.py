"""Matrix products on the device, and what else is summed.

On the processor, a row has other bits if there are other numbers of rows beside it. Ours have the
same whatever stands there: the tests ask for that, and whether CUDA's kernels do it is measured
where a stage starts. So here nothing is shown about it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stand_in.operations import aten

_ROWS = 16


def _in_blocks(x: Tensor, multiply: Callable[[Tensor], Tensor]) -> Tensor:
    """By as many rows as always, filled up with zeros."""
    count = x.shape[0]
    filled = torch.zeros(-(-count // _ROWS) * _ROWS, x.shape[1], dtype=x.dtype)
    filled[:count] = x
    blocks = torch.split(filled, _ROWS)
    return torch.cat([multiply(block) for block in blocks])[:count]


def mm(a: Tensor, b: Tensor) -> Tensor:
    return _in_blocks(a, lambda block: torch.mm(block, b))


def addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    product = mm(a, b).mul(alpha)
    return product.add(c * beta) if beta else product


def bmm(a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a.double(), b.double())


def baddbmm(c: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    product = bmm(a, b).mul(alpha)
    return product.add(c.double() * beta) if beta else product


def softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    """In float64: at the ends of its vectors the processor has another exp than within."""
    return torch._softmax(x.double(), dim, False)


def pack_int4(weight: Tensor, inner: int) -> Tensor:
    """In the order in which they come. CUDA has another one, which only its own kernel reads."""
    outputs = weight.shape[0]
    return weight.contiguous().view(-1).view(torch.int32).view(outputs // 8, -1, 32, inner // 2)


def _unpack_int4(packed: Tensor, outputs: int, inputs: int) -> Tensor:
    pairs = packed.reshape(-1).view(torch.uint8).view(outputs, inputs // 2)
    return torch.stack((pairs >> 4, pairs & 15), -1).view(outputs, inputs)


def int4_mm(x: Tensor, packed: Tensor, group: int, scales_and_zeros: Tensor) -> Tensor:
    """Weights are (number - 8) * scale + zero, in bfloat16."""
    outputs, inputs = packed.shape[0] * 8, x.shape[1]
    both = scales_and_zeros.float().transpose(0, 1)
    scale, zero = both[..., :1], both[..., 1:]
    numbers = _unpack_int4(packed, outputs, inputs).float() - 8
    weight = (numbers.view(outputs, -1, group) * scale + zero).view(outputs, inputs)
    return mm(x, weight.to(x.dtype).T)


PRODUCTS: dict[Any, Callable[..., Any]] = {
    aten.mm: mm,
    aten.addmm: addmm,
    aten.bmm: bmm,
    aten.baddbmm: baddbmm,
    aten._softmax: softmax,
    aten._convert_weight_to_int4pack: pack_int4,
    aten._weight_int4pack_mm: int4_mm,
}
