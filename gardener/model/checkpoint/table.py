"""An embedding of which rows are read as tokens come: however it is stored, it stays so, mapped."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gardener.model.checkpoint.gguf_types import dequantised
from gardener.model.kernels.grouped import Grouped


class Table(ABC):
    """Of [vocab, width]; `nbytes` as it is stored."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes

    @abstractmethod
    def rows(self, tokens: Tensor) -> Tensor:
        """[len(tokens), width] of these tokens, in floats. Raises IndexError for one that is not
        there."""

    def on(self, device: torch.device, dtype: torch.dtype) -> "Table":
        """The table for rows that are wanted there, so. One that is quantised, or wanted on the
        CPU, stays as it is."""
        return self

    def is_on(self, device: torch.device) -> bool:
        """Whether rows for this device are read by it alone."""
        return False


class FloatTable(Table):
    """Of floats, in the dtype and on the device they have."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(weights.nbytes)
        self._weights = weights

    def rows(self, tokens: Tensor) -> Tensor:
        """See `Table`."""
        return F.embedding(tokens.to(self._weights.device), self._weights)

    def on(self, device: torch.device, dtype: torch.dtype) -> Table:
        """See `Table`."""
        return self if device.type == "cpu" else FloatTable(self._weights.to(device, dtype))

    def is_on(self, device: torch.device) -> bool:
        """See `Table`."""
        return self._weights.device.type == device.type


class GGUFTable(Table):
    """Quantised in a GGUF file. A row takes 20 to 50 us."""

    def __init__(self, raw: np.ndarray[Any, np.dtype[np.uint8]], kind: str) -> None:
        """`raw` [vocab, bytes of a row], of this type of GGML."""
        super().__init__(raw.nbytes)
        self._raw, self._kind = torch.from_numpy(raw), kind

    def rows(self, tokens: Tensor) -> Tensor:
        """See `Table`."""
        chosen = self._raw.index_select(0, tokens.cpu()).numpy()
        return torch.from_numpy(dequantised(chosen, self._kind))


class GroupedTable(Table):
    """Of `Grouped` weights."""

    def __init__(self, weights: Grouped) -> None:
        super().__init__(weights.nbytes)
        self._weights = weights

    def rows(self, tokens: Tensor) -> Tensor:
        """See `Table`."""
        return self._weights.rows(tokens.cpu()).widened()


LARGEST_NEAR = 1 << 29
"""Bytes on a device at most, of a table that is there for the sake of speed."""

_AT_ONCE = 4096


def near(table: Table, vocab: int, device: torch.device, dtype: torch.dtype) -> Table:
    """The table for rows that are wanted on this device at once, so: in memory of its own, as
    floats however it is stored, unless that is too much. On the CPU it stays as it is."""
    if device.type == "cpu":
        return table
    if vocab * table.rows(torch.arange(1)).to(dtype).nbytes > LARGEST_NEAR:
        return table
    moved = table.on(device, dtype)
    if moved.is_on(device):
        return moved
    parts = torch.split(torch.arange(vocab), _AT_ONCE)
    return FloatTable(torch.cat([table.rows(part).to(device, dtype) for part in parts]))
