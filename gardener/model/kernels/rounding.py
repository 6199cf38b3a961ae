"""Float weights to `Grouped` ones."""

import torch
from torch import Tensor

from gardener.model.kernels.grouped import Grouped


def rounded(weight: Tensor, bits: int, group: int) -> Grouped:
    """Weights [outputs, inputs] in this many bits, a scale per `group` of them.

    Raises ValueError for inputs that are no multiple of the group.
    """
    outputs, inputs = weight.shape
    if inputs % group:
        raise ValueError(f"{inputs} inputs are no multiple of groups of {group}")
    groups = weight.float().reshape(outputs, -1, group)
    # The largest one, with its sign, becomes the lowest step, which has no counterpart above.
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    lowest = 2 ** (bits - 1)
    scales = largest / -lowest
    inverse = torch.where(scales == 0, 0.0, 1 / scales)
    steps = (groups * inverse).round_().clamp_(-lowest, lowest - 1).add_(lowest)
    steps = steps.to(torch.uint8).flatten(1)
    if bits == 4:
        steps = steps[:, ::2] | steps[:, 1::2] << 4
    return Grouped(bits, group, steps, scales.squeeze(-1))
