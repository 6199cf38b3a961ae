"""The feed-forward part of a layer."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from gardener.model.kernels.interface import Linear

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
"""By what `families.ACTIVATIONS` calls them."""


class FeedForward(Protocol):
    """Rows [rows, width] to the same, each for itself."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...

    def __call__(self, x: Tensor) -> Tensor: ...


class Dense:
    """A gated one (Shazeer 2020): all rows go through the same weights. gate_up: both in one linear
    layer, [rows, width] to [rows, 2 * inner]."""

    def __init__(self, gate_up: Linear, down: Linear, activation: str = "silu") -> None:
        self._gate_up, self._down = gate_up, down
        self._activation = ACTIVATIONS[activation]

    @property
    def nbytes(self) -> int:
        return self._gate_up.nbytes + self._down.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        gate, up = self._gate_up(x).chunk(2, -1)
        return self._down(self._activation(gate) * up)
