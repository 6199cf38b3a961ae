"""Tokens to hidden states."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class Embedding:
    """The embedding of a model.

    The table may stay in the checkpoint's own dtype, and there in the mapped file: a token reads
    one row of it.
    """

    def __init__(
        self, table: Tensor, dtype: torch.dtype, device: torch.device, scale: float = 1.0
    ) -> None:
        """`table` [vocab, width]; `dtype` and `device` of what comes out; `scale`: a factor on it,
        which is rounded to `dtype`, as in Gemma."""
        self._table, self._dtype, self._device = table, dtype, device
        self._scale = None if scale == 1.0 else torch.tensor(scale, dtype=dtype, device=device)
        self.nbytes = table.nbytes

    def __call__(self, tokens: Sequence[int]) -> Tensor:
        """[rows, width] of these tokens."""
        ids = torch.tensor(tokens).to(self._table.device)
        rows = F.embedding(ids, self._table).to(self._device, self._dtype)
        return rows if self._scale is None else rows * self._scale
