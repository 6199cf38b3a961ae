"""Linear layers whose sums are made in float64: the order of a sum leaves no trace.

For small ones that decide something, between others that round: in float32, the last bit of a
router's score would decide how the next quantised layer rounds.
"""

import torch.nn.functional as F
from torch import Tensor

from gardener.model.kernels.interface import UNTRIED


class Exact:
    """Weights kept in float64; rows and results are of the dtype of the rows."""

    spread = UNTRIED

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight.double()
        self._bias = None if bias is None else bias.double()
        self.nbytes = self._weight.nbytes + (0 if self._bias is None else self._bias.nbytes)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.double(), self._weight, self._bias).to(x.dtype)
