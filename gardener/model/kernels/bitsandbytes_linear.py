"""Linear layers in 8 or 4 bits, through bitsandbytes, on the CPU as on CUDA.

llm-int8   LLM.int8 without outliers: weights and activations in 8 bits, one scale per row
nf4, fp4   weights in 4 bits with a scale per 64 of them, computed in the dtype of the activations
"""

import importlib
import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gardener.errors import UserError
from gardener.model.kernels.batch_invariant import batch_invariant
from gardener.model.kernels.interface import Make

_BLOCK = 64  # weights per scale of the 4-bit formats
_TILE = 32  # outputs per tile of the 4-bit CPU kernel


def quantised(quant: str) -> Make:
    """How to make a linear layer of this kind from weights [outputs, inputs] and a bias.

    Raises UserError if bitsandbytes is not installed.
    """
    bnb = _bitsandbytes()

    form = partial(_Int8, bnb) if quant == "llm-int8" else partial(_FourBit, bnb, quant)
    return partial(batch_invariant, form)


class _Int8:
    """Weights [outputs, inputs] in int8 with a scale per output; rows are quantised on the way."""

    def __init__(self, bnb: Any, weight: Tensor, bias: Tensor | None) -> None:
        self._ops = bnb.functional
        # bitsandbytes takes the scales from float16; a wider weight is halved first.
        self._weight, self._scales, _ = self._ops.int8_vectorwise_quant(weight.to(torch.float16))
        self._bias = bias
        self.nbytes = self._weight.nbytes + self._scales.nbytes + _size(bias)

    def __call__(self, x: Tensor) -> Tensor:
        rows, scales, _ = self._ops.int8_vectorwise_quant(x.to(torch.float16))
        sums = self._ops.int8_linear_matmul(rows, self._weight)
        y: Tensor = self._ops.int8_mm_dequant(sums, scales, self._scales).to(x.dtype)
        return y if self._bias is None else y + self._bias


class _FourBit:
    """Weights [outputs, inputs] in nf4 or fp4."""

    def __init__(self, bnb: Any, quant: str, weight: Tensor, bias: Tensor | None) -> None:
        outputs, inputs = weight.shape
        self._layer = bnb.nn.Linear4bit(
            inputs,
            outputs,
            bias=bias is not None,
            compute_dtype=weight.dtype,
            compress_statistics=False,
            quant_type=quant,
            device="meta",
        )
        self._layer.weight = bnb.nn.Params4bit(
            weight.contiguous(),
            requires_grad=False,
            compress_statistics=False,
            quant_type=quant,
            blocksize=_BLOCK,
            module=self._layer,
        ).to(weight.device)
        if bias is not None:
            self._layer.bias = torch.nn.Parameter(bias, requires_grad=False)
        if outputs % _TILE or inputs % _BLOCK:  # the tiled kernel cannot; the general one can
            self._layer.support_avx512bf16_for_cpu = False
        self._layer.eval()
        scales = outputs * inputs // _BLOCK * 4
        self.nbytes = outputs * inputs // 2 + scales + _size(bias)

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._layer(x)
        return y


def _size(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.nbytes


def _bitsandbytes() -> Any:
    # It warns that an optional package with one more kernel is missing, which is not used here.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise UserError(
            "--quant nf4, fp4 and llm-int8 need the package bitsandbytes: pip install "
            "'gardener-node[quant]'"
        ) from error
