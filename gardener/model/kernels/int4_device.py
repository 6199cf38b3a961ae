"""Linear layers in 4 bits on a device, through torch's `_weight_int4pack_mm` (tinygemm).

Its products are of bfloat16, with weights that are widened on the way, and are summed up in float32
in tiles of 16 rows whose sums are never split: so a row has the same bits in any company, and few
rows take less time than 16. On an H100, gate and up of Llama-2-7B in groups of 32, us at 1 / 8 / 16
/ 64 rows: 30 / 61 / 103 / 399, where bfloat16 takes 70. It needs compute capability 8.0.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from gardener.model.kernels.grouped import Grouped
from gardener.model.kernels.interface import UNTRIED
from gardener.model.kernels.rounding import rounded

DTYPE = torch.bfloat16
"""What it computes in, whatever the dtype of the rows."""

_GROUPS = (32, 64, 128, 256)
_OUTPUTS, _WIDE = 8, 16  # outputs of a tile, and of one on some devices
_INNER, _TILE = (8, 4, 2), 16  # tiles of inputs that may stand together, and the inputs of one
_MIDDLE = 8  # the step whose weight is the zero of its group
_PART = 4096  # outputs that are packed together: a multiple of all tiles
_LEAST = (8, 0)  # compute capability


class Kernel(NamedTuple):
    """How a kind of device multiplies.

    pack      steps as `Grouped` has them, there, and tiles that stand together, to its own form
    multiply  rows in bfloat16, what was packed, the group, and scales and zeros in bfloat16
              [inputs / group, outputs, 2]: (step - 8) * scale + zero is the weight
    """

    pack: Callable[[Tensor, int], Tensor]
    multiply: Callable[[Tensor, Tensor, int, Tensor], Tensor]


def _packed_for_cuda(steps: Tensor, inner: int) -> Tensor:
    # There, the first of two steps is in the high half of their byte.
    turned = (steps & 15) << 4 | steps >> 4
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack(turned, inner)
    return packed


KERNELS = {"cuda": Kernel(_packed_for_cuda, torch.ops.aten._weight_int4pack_mm)}
"""By type of device."""


class Int4Linear:
    """Weights as `Grouped` has them, of a shape that `takes` takes, with a bias or without one.

    Results are of the dtype of the rows. A row that is no number gives none.
    """

    spread = UNTRIED

    def __init__(self, weight: Grouped, bias: Tensor | None, device: torch.device) -> None:
        kernel, inner = KERNELS[device.type], _inner(weight.shape[1])
        assert inner is not None  # takes() says so
        self._packed = _packed(weight.steps, kernel, inner, device)
        self._scales = scales_and_zeros(weight).to(device)
        self._group, self._multiply, self._bias = weight.group, kernel.multiply, bias
        tensors = (self._packed, self._scales, *([] if bias is None else [bias]))
        self.nbytes = sum(tensor.nbytes for tensor in tensors)

    def __call__(self, x: Tensor) -> Tensor:
        """Rows [n, inputs] to rows [n, outputs]."""
        y = self._multiply(x.to(DTYPE), self._packed, self._group, self._scales).to(x.dtype)
        return y if self._bias is None else y + self._bias


def _packed(steps: Tensor, kernel: Kernel, inner: int, device: torch.device) -> Tensor:
    """A part after the other: packing one takes four times its own memory."""
    parts = torch.split(steps, _PART)
    first = kernel.pack(parts[0].to(device), inner)
    if len(parts) == 1:
        return first
    rows = len(first) * len(steps) // len(parts[0])
    packed = first.new_empty(rows, *first.shape[1:])
    packed[: len(first)] = first
    for number, part in enumerate(parts[1:], 1):
        made = kernel.pack(part.to(device), inner)
        packed[number * len(first) :][: len(made)] = made
    return packed


def scales_and_zeros(weight: Grouped) -> Tensor:
    """[inputs / group, outputs, 2], see `Kernel`. Scales are rounded first, so that zeros fit to
    what they have become: a weight at its zero point remains near zero."""
    scales = weight.scales.to(DTYPE).float()
    zeros = float(_MIDDLE) if weight.zeros is None else weight.zeros.float()
    middle = scales * (_MIDDLE - zeros)
    if weight.minima is not None:
        middle = middle + weight.minima
    return torch.stack((scales, middle), -1).to(DTYPE).transpose(0, 1).contiguous()


def takes(weight: Grouped, device: torch.device) -> bool:
    """Whether the kernel computes such weights there."""
    outputs, inputs = weight.shape
    inner = _inner(inputs)
    if inner is None or weight.bits != 4 or weight.group not in _GROUPS or outputs % _OUTPUTS:
        return False
    return works(device, inner, _WIDE + outputs % _WIDE)


@cache
def works(device: torch.device, inner: int, outputs: int) -> bool:
    """Whether this build of torch has the kernel for this device, for weights of so few outputs,
    whose tiles stand together in so many. Tried out, not guessed."""
    if device.type not in KERNELS or not _capable(device):
        return False
    draw = torch.Generator().manual_seed(0)
    inputs = inner * _TILE
    weight = rounded(torch.randn(outputs, inputs, generator=draw), 4, min(_GROUPS))
    x = torch.randn(3, inputs, generator=draw)
    try:
        got = Int4Linear(weight, None, device)(x.to(device, DTYPE)).float().cpu()
    except torch.OutOfMemoryError:  # says nothing of the kernel
        raise
    except (RuntimeError, AttributeError):
        return False
    expected = x @ weight.widened().T
    return bool((got - expected).norm() < 0.05 * expected.norm())


def _capable(device: torch.device) -> bool:
    """Older ones have the kernel, but nothing is in it."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= _LEAST


def _inner(inputs: int) -> int | None:
    """How many tiles of inputs stand together; None: it cannot take so many inputs."""
    return next((inner for inner in _INNER if inputs % (inner * _TILE) == 0), None)
