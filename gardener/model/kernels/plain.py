"""Linear layers through the ordinary matrix product of torch, on any device."""

import torch.nn.functional as F
from torch import Tensor

from gardener.model.kernels.interface import UNTRIED


class Plain:
    """The ordinary matrix product of torch."""

    spread = UNTRIED

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias
        self.nbytes = weight.nbytes + (0 if bias is None else bias.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)
