"""Weights and rows for trials of kernels: sums whose terms cancel out.

What is left of such a sum is the error of the order in which it was made, where that of an ordinary
sum would mostly be rounded away. There are two kinds, which turn about from row to row: terms that
cancel out within a block of 64 inputs, and terms that cancel out between the first and the second
half of all blocks, so that what is added up on the way is large.
"""

import torch
from torch import Tensor

TILE = 64
"""Outputs that have weights of their own; the others repeat them, which takes little time."""

_BLOCK = 64
_SIZES = 5  # rows are of so many sizes: a kernel may scale each row by the largest one


def tile(inputs: int) -> Tensor:
    """Weights [TILE, inputs] in float32, of which all kinds of 16 bits hold every one."""
    blocks, block, far = _grid(inputs)
    weight = torch.randn(TILE, blocks, 1, block // 2, generator=_random(1)).repeat(1, 1, 2, 1)
    weight[:, far : 2 * far] = weight[:, :far]
    return weight.flatten(1)[:, :inputs].bfloat16().float()


def repeated(part: Tensor, outputs: int) -> Tensor:
    """A tensor [TILE, ...] as one [outputs, ...]."""
    whole = part.repeat(-(-outputs // len(part)), *[1] * (part.dim() - 1))
    return whole[:outputs].contiguous()


def cancelling(rows: int, inputs: int) -> Tensor:
    """Rows [rows, inputs] in float32 whose products with the weights of `tile` cancel out."""
    blocks, block, far = _grid(inputs)
    half = torch.randn(rows, blocks, 1, block // 2, generator=_random(2))
    within = torch.cat((half, -half), 2)
    between = torch.randn(rows, blocks, 2, block // 2, generator=_random(3))
    between[:, far : 2 * far] = -between[:, :far]
    between[:, 2 * far :] = within[:, 2 * far :]
    odd = torch.arange(rows) % 2 == 1
    both = torch.where(odd[:, None, None, None], between, within).flatten(1)[:, :inputs]
    both[:, inputs // block * block :] = 0  # the rest of a block, which nothing cancels out
    return both * _sizes(rows)


def ordinary(rows: int, inputs: int) -> Tensor:
    """Rows [rows, inputs] in float32 as they come in a model."""
    return torch.randn(rows, inputs, generator=_random(4)) * _sizes(rows)


def _grid(inputs: int) -> tuple[int, int, int]:
    """Blocks, inputs of a block, and the blocks of either half."""
    block = min(_BLOCK, max(inputs // 2 * 2, 2))
    blocks = -(-inputs // block)
    whole = inputs // block
    # Even, so that groups of two blocks are alike in both halves.
    return blocks, block, whole // 4 * 2 or whole // 2


def _sizes(rows: int) -> Tensor:
    return 2.0 ** (torch.arange(rows) % _SIZES - _SIZES // 2)[:, None]


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
