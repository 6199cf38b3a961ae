"""Linear layers side by side, where one cannot hold all weights that read the same rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gardener.model.kernels.interface import Linear


class Beside:
    """The outputs of several layers, one after the other."""

    def __init__(self, layers: Sequence[Linear]) -> None:
        self._layers = layers
        self.nbytes = sum(layer.nbytes for layer in layers)

    def __call__(self, x: Tensor) -> Tensor:
        """Rows [n, inputs] to rows [n, outputs of all]."""
        return torch.cat([layer(x) for layer in self._layers], -1)
