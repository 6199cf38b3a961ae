"""The feed-forward part of a layer."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.kernels.interface import Linear

Activation = Callable[[Tensor], Tensor]

_SERIAL = 2**14  # most numbers that torch computes on one thread, whatever the function


def _gelu(gate: Tensor) -> Tensor:
    """For a lone row, which lies in one piece of memory, torch would take another kernel."""
    return F.gelu(gate.expand(2, -1))[:1] if len(gate) == 1 else F.gelu(gate)


ACTIVATIONS: dict[str, Activation] = {
    "silu": F.silu,
    "gelu": _gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
"""By what `families.ACTIVATIONS` calls them. Of halves of wider rows, as in `gated`."""


def gated(activation: Activation, gate_up: Tensor) -> Tensor:
    """`activation` of the gate times what goes through it: [rows, 2 * inner] to [rows, inner].

    A row comes to the same bits whatever is beside it. Torch computes the last few numbers of a
    piece in another way than the others, so the pieces must be the same: each row is one, as long
    as the rows do not lie side by side, and as no thread begins in the middle of one.
    """
    rows, inner = len(gate_up), gate_up.shape[-1] // 2
    many = max(1, _SERIAL // inner)
    shared = rows > many and torch.get_num_threads() > 1 and gate_up.device.type == "cpu"
    if not shared:
        gate, up = gate_up.chunk(2, -1)
        return activation(gate).mul_(up)
    product = gate_up.new_empty(rows, inner)
    for part, into in zip(torch.split(gate_up, many), torch.split(product, many), strict=True):
        torch.mul(activation(part[:, :inner]), part[:, inner:], out=into)
    return product


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
        return self._down(gated(self._activation, self._gate_up(x)))
