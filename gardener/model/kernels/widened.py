"""Linear layers that keep weights in 16 bits and widen them inside the matrix product (FBGEMM)."""

import math
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

from gardener.model.kernels.interface import UNTRIED, CPUKernel, works

_BLOCK_ROWS = 3  # FBGEMM adds up blocks of at least this many rows in one order
_MOST_EXPONENT = 100  # so that scaled rows keep clear of the ends of float32
_FIT_ROWS = 256  # weights are looked at in parts of this many outputs
_HALF_EXPONENT = 16  # float16 holds 65504, above all of bfloat16 below 2 ** 16


class Widened:
    """Weights kept in 16 bits and widened to 32 inside the matrix product, by FBGEMM's kernels.

    Not for two threads at once.

    For a CPU without instructions for 16 bits, where torch multiplies them row by row; and for
    float32 from a 16-bit checkpoint, where half the bytes are zeros. On one core of an AVX2
    machine, 1 / 8 / 16 rows of 30 layers of 576: 33 / 55 / 76 ms, where torch's own bfloat16 takes
    29 / 215 / 441 and packed float32 64 / 101 / 106. Products and sums are those of float32, of the
    same weights: scaled by a power of two, up to 11 bits of a weight fit into float16. What is lost
    of the smallest, see `_fits_float16`, is less than float32 loses in the sum.
    """

    spread = UNTRIED

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Raises OverflowError for weights that do not fit."""
        largest = float(torch.stack(weight.aminmax()).abs().max())
        exponent = _HALF_EXPONENT - math.frexp(largest)[1]
        if abs(exponent) > _MOST_EXPONENT or not _fits_float16(weight, exponent):
            raise OverflowError("these weights do not fit into float16")
        scaled = weight * _power(exponent)
        wide_bias = None if bias is None else bias.float()
        self._packed = torch.ops.quantized.linear_prepack_fp16(scaled, wide_bias)
        self._scale = _power(-exponent)
        # Blocks of one or two rows are added up in another order. Most passes have no more, so they
        # are padded here, where it takes one step less than in `batch_invariant.py`.
        least = 1 if weight.dtype == torch.float32 else _BLOCK_ROWS
        with torch.inference_mode(False):  # so that it can be written to in any mode
            self._few = torch.zeros(least, weight.shape[1])
        self.nbytes = 2 * weight.numel() + (0 if wide_bias is None else wide_bias.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        rows, multiply = len(x), torch.ops.quantized.linear_dynamic_fp16
        y: Tensor
        if rows < len(self._few):
            torch.mul(x, self._scale, out=self._few[:rows])
            y = multiply(self._few, self._packed)[:rows]
        else:
            y = multiply(x * self._scale, self._packed)
        return y.to(x.dtype)


def _fits_float16(weight: Tensor, exponent: int) -> bool:
    """Whether float16 takes less of each scaled weight than 2 ** -24 of the largest in its row."""

    def fits(rows: Tensor) -> bool:
        rows = rows * _power(exponent)
        lost = (rows.half().float() - rows).abs_().amax(1)
        return bool((lost <= 2.0**-24 * rows.abs().amax(1)).all())

    return all(map(fits, torch.split(weight, _FIT_ROWS)))  # the first tells of most that do not


def _power(exponent: int) -> Tensor:
    """2 ** exponent, [1] in float32: what is multiplied by it becomes float32."""
    return torch.tensor([2.0**exponent])


@cache
def _pays(dtype: torch.dtype) -> bool:
    """Whether the kernels work, and this CPU has no instructions that make them needless.

    Not told by time: the choice changes bits in 16 bits, and all runs should make the same one.
    """
    needless = dtype != torch.float32 and _has_instructions(dtype)
    return not needless and works(Widened, dtype)


def _has_instructions(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies this kind of 16 bits. An older torch, or another kind of CPU,
    does not tell, and is taken to."""
    tell: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    return bool(tell().get("avx512_bf16" if dtype == torch.bfloat16 else "avx512_fp16", True))


WIDENED = CPUKernel(Widened, _pays)
"""Taken where the CPU has no instructions for 16 bits, and for float32."""
