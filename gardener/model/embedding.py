"""Tokens to hidden states."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gardener.model.checkpoint.table import Table


class Embedding:
    """The embedding of a model: a token reads one row of the table."""

    def __init__(
        self, table: Table, dtype: torch.dtype, device: torch.device, scale: float = 1.0
    ) -> None:
        """`dtype` and `device` of what comes out; `scale`: a factor on it, which is rounded to
        `dtype`, as in Gemma."""
        self._table, self._dtype, self._device = table, dtype, device
        self._scale = None if scale == 1.0 else torch.tensor(scale, dtype=dtype, device=device)
        self.nbytes = table.nbytes

    @property
    def is_there(self) -> bool:
        """Whether the table is on the device, so that to read it there waits for nothing."""
        return self._table.is_on(self._device)

    def __call__(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """[rows, width] of these tokens."""
        rows = self._table.rows(torch.as_tensor(tokens)).to(self._device, self._dtype)
        return rows if self._scale is None else rows * self._scale
