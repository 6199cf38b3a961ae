"""Linear layers of `Grouped` weights on the CPU: how they are put together, and tried."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gardener.model.kernels.batch_invariant import padded
from gardener.model.kernels.beside import Beside
from gardener.model.kernels.grouped import Grouped, joined
from gardener.model.kernels.interface import Linear
from gardener.model.kernels.onnx_linear import OnnxLinear
from gardener.model.kernels.rounding import rounded


def grouped_linear(parts: Sequence[Grouped], bias: Tensor | None) -> Linear:
    """A batch-invariant layer out of weights that read the same rows. Those that are of one kind
    are computed together. Raises UserError if a package is missing."""
    found = runs(parts)
    heights = [run.shape[0] for run in found]
    biases = [None] * len(found) if bias is None else torch.split(bias, heights)
    layers = [_one(*each) for each in zip(found, biases, strict=True)]
    return layers[0] if len(layers) == 1 else Beside(layers)


def _one(weight: Grouped, bias: Tensor | None) -> Linear:
    kind = _Kind(
        weight.bits,
        weight.group,
        weight.zeros is not None,
        weight.minima is not None,
        bias is not None,
    )
    layer = OnnxLinear(weight, bias)
    # Tried in float32, in which it computes: results in 16 bits hide most of what differs.
    cpu = torch.device("cpu")
    return padded(layer, str(kind), kind, *weight.shape, torch.float32, cpu, rounds=True)


@dataclass(frozen=True)
class _Kind:
    """What chooses how ONNX Runtime computes, but for the shape; makes layers for a trial."""

    bits: int
    group: int
    zeros: bool
    minima: bool
    bias: bool

    def __call__(self, part: Tensor, outputs: int) -> Linear:
        """With these weights [n, inputs] over and over."""
        few = repeated_weight(part, outputs, self.bits, self.group)
        weight = replace(
            few,
            zeros=few.zeros if self.zeros else None,
            minima=few.scales if self.minima else None,
        )
        return OnnxLinear(weight, torch.zeros(outputs) if self.bias else None)


def repeated_weight(part: Tensor, outputs: int, bits: int, group: int) -> Grouped:
    """Weights [n, inputs] rounded, so many outputs of them: over and over."""
    few = rounded(part, bits, group)
    return few.rows(torch.arange(outputs) % len(part))


def runs(parts: Sequence[Grouped]) -> list[Grouped]:
    """The same weights, neighbours of one kind joined."""
    alike: list[list[Grouped]] = []
    for part in parts:
        if alike and (alike[-1][0].bits, alike[-1][0].group) == (part.bits, part.group):
            alike[-1].append(part)
        else:
            alike.append([part])
    found = [joined(run) for run in alike]
    return [each for each in found if each is not None]
