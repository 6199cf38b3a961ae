"""The language-model head: final norm and output matrix."""

import torch

from gardener.model.architecture import Architecture
from gardener.model.kernels.interface import Linear
from gardener.model.norm import rms_norm


class Head:
    """Hidden states [rows, width] to logits [rows, vocabulary]."""

    def __init__(
        self, architecture: Architecture, norm: torch.Tensor, head: Linear, dtype: torch.dtype
    ) -> None:
        """`dtype` of the hidden states."""
        self._norm, self._eps, self._head = norm, architecture.eps, head
        self._scale, self._softcap = architecture.logit_scale, architecture.logit_softcap
        self.nbytes = norm.nbytes + head.nbytes
        self.dtype = dtype

    @property
    def device(self) -> torch.device:
        return self._norm.device

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final norm, [rows, width] to the same."""
        return rms_norm(hidden, self._norm, self._eps)

    def project(self, normed: torch.Tensor) -> torch.Tensor:
        """What comes out of the norm to logits [rows, vocabulary]."""
        logits = self._head(normed)
        if self._scale != 1.0:
            logits = logits * self._scale
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, width] to [rows, vocabulary]."""
        return self.project(self.normed(hidden))
