"""The language-model head: final norm and output matrix."""

import torch

from gardener.model.kernels.interface import Linear
from gardener.model.llama import rms_norm


class Head:
    """Hidden states [rows, width] to logits [rows, vocabulary]."""

    def __init__(self, norm: torch.Tensor, eps: float, head: Linear) -> None:
        self._norm, self._eps, self._head = norm, eps, head
        self.nbytes = norm.nbytes + head.nbytes

    @property
    def dtype(self) -> torch.dtype:
        return self._norm.dtype

    @property
    def device(self) -> torch.device:
        return self._norm.device

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final norm, [rows, width] to the same."""
        return rms_norm(hidden, self._norm, self._eps)

    def project(self, normed: torch.Tensor) -> torch.Tensor:
        """What comes out of the norm to logits [rows, vocabulary]."""
        return self._head(normed)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, width] to [rows, vocabulary]."""
        return self.project(self.normed(hidden))
