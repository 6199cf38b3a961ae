"""Weights in 4 or 8 bits, in groups with a scale each: what kernels and files pass on.

The layout is that of ONNX Runtime's `MatMulNBits`, which is that of GGUF's types and of most
others but for the order of bytes: groups run along the inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gardener.model.quants import GROUPS


@dataclass(frozen=True, eq=False)
class Grouped:
    """Weights [outputs, inputs]: scale * (step - zero) + minimum, each of its group.

    steps   uint8 [outputs, inputs * bits / 8]; of 4 bits two to a byte, the first in the low half
    scales  float32 [outputs, inputs / group]
    zeros   uint8 [outputs, inputs / group], one to a byte; None: 2 ** (bits - 1)
    minima  float32 [outputs, inputs / group]; None: 0
    """

    bits: int
    group: int
    steps: Tensor
    scales: Tensor
    zeros: Tensor | None = None
    minima: Tensor | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for parts that do not fit together."""
        outputs, inputs = self.shape
        if self.group not in GROUPS:
            raise ValueError(f"groups of {self.group}, not of {', '.join(map(str, GROUPS))}")
        grid = (outputs, inputs // self.group)
        parts = [part for part in (self.scales, self.zeros, self.minima) if part is not None]
        if self.bits not in (4, 8) or inputs % self.group:
            raise ValueError(f"{inputs} inputs in groups of {self.group} of {self.bits} bits")
        if any(part.shape != grid for part in parts):
            raise ValueError(f"scales of {[tuple(p.shape) for p in parts]} where {grid} are due")

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs, inputs."""
        outputs, size = self.steps.shape
        return outputs, size * 8 // self.bits

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        parts = (self.steps, self.scales, self.zeros, self.minima)
        return sum(part.nbytes for part in parts if part is not None)

    def on(self, device: torch.device) -> "Grouped":
        """The same there."""
        zeros, minima = (
            part if part is None else part.to(device) for part in (self.zeros, self.minima)
        )
        steps, scales = self.steps.to(device), self.scales.to(device)
        return Grouped(self.bits, self.group, steps, scales, zeros, minima)

    def rows(self, outputs: Tensor) -> "Grouped":
        """Only these outputs, by number. Raises IndexError for one that is not there."""

        def of(part: Tensor) -> Tensor:
            return part.index_select(0, outputs)

        zeros, minima = (part if part is None else of(part) for part in (self.zeros, self.minima))
        return Grouped(self.bits, self.group, of(self.steps), of(self.scales), zeros, minima)

    def widened(self) -> Tensor:
        """The weights [outputs, inputs] in float32."""
        steps = self.steps
        if self.bits == 4:
            steps = torch.stack((steps & 15, steps >> 4), -1).flatten(1)
        steps = steps.view(len(steps), -1, self.group).float()
        zeros = 2.0 ** (self.bits - 1) if self.zeros is None else self.zeros.float()[..., None]
        weights = (steps - zeros) * self.scales[..., None]
        if self.minima is not None:
            weights += self.minima[..., None]
        return weights.flatten(1)


def joined(parts: Sequence[Grouped]) -> Grouped | None:
    """One weight out of several that read the same rows: their outputs one after the other. None if
    they are of different bits or groups."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if any((part.bits, part.group) != (first.bits, first.group) for part in parts):
        return None
    return Grouped(
        first.bits,
        first.group,
        torch.cat([part.steps for part in parts]),
        torch.cat([part.scales for part in parts]),
        _joined([part.zeros for part in parts], parts, 2 ** (first.bits - 1)),
        _joined([part.minima for part in parts], parts, 0),
    )


def _joined(
    given: Sequence[Tensor | None], parts: Sequence[Grouped], otherwise: int
) -> Tensor | None:
    """These of all parts; `otherwise` where a part has none and another one has."""
    known = [each for each in given if each is not None]
    if not known:
        return None
    return torch.cat(
        [
            torch.full_like(part.scales, otherwise, dtype=known[0].dtype) if each is None else each
            for each, part in zip(given, parts, strict=True)
        ]
    )
