"""Keys and values of one request, in slots.

Which slot a row is written to and which slots it sees is decided elsewhere (`kv_slots.SlotTable`);
here entries are written once and never moved, whatever is pruned.
"""

import torch
from torch import Tensor

from gardener.model.architecture import Architecture

_FIRST_SIZE = 256


class KVCache:
    """Per layer two tensors [kv_heads, slots, head_dim]; they double when slots run out."""

    def __init__(
        self, layers: int, architecture: Architecture, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._slots = _FIRST_SIZE
        size = (architecture.kv_heads, self._slots, architecture.head_dim)
        # Zeros, not empty memory: a masked NaN would still poison the row that masks it.
        self._keys = [torch.zeros(size, dtype=dtype, device=device) for _ in range(layers)]
        self._values = [torch.zeros(size, dtype=dtype, device=device) for _ in range(layers)]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(tensor.nbytes for tensor in (*self._keys, *self._values))

    def reserve(self, slots: int) -> None:
        """Make room for this many slots. Nothing else copies entries."""
        if slots <= self._slots:
            return
        while self._slots < slots:
            self._slots *= 2
        for kept in (self._keys, self._values):
            for layer, old in enumerate(kept):
                kept[layer] = old.new_zeros(old.shape[0], self._slots, old.shape[2])
                kept[layer][:, : old.shape[1]] = old

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put keys and values [rows, kv_heads, head_dim] of one layer into `slots` [rows]."""
        self._keys[layer].index_copy_(1, slots, keys.transpose(0, 1))
        self._values[layer].index_copy_(1, slots, values.transpose(0, 1))

    def read(self, layer: int, high: int) -> tuple[Tensor, Tensor]:
        """Keys and values of slots 0..high-1, [kv_heads, high, head_dim], without a copy."""
        return self._keys[layer][:, :high], self._values[layer][:, :high]
