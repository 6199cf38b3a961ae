"""Keys and values of one request, in slots.

Which slot a row is written to and which slots it sees is decided elsewhere (`kv_slots.SlotTable`);
here entries are written once and not moved while the request runs, whatever is pruned.
"""

import torch
from torch import Tensor

from gardener.errors import LocalError
from gardener.model.architecture import Architecture

_FIRST_SIZE = 256


def slot_bytes(layers: int, architecture: Architecture, dtype: torch.dtype) -> int:
    """Bytes that keys and values of one row take in this many layers."""
    return 2 * layers * architecture.kv_heads * architecture.head_dim * dtype.itemsize


class KVCache:
    """Per layer two tensors [kv_heads, slots, head_dim]; they double when slots run out, but never
    hold more than `most` slots (None: as many as are asked for)."""

    def __init__(
        self,
        layers: int,
        architecture: Architecture,
        dtype: torch.dtype,
        device: torch.device,
        most: int | None = None,
    ) -> None:
        self._most = most
        self._slots = _FIRST_SIZE if most is None else min(_FIRST_SIZE, most)
        size = (architecture.kv_heads, self._slots, architecture.head_dim)
        # Zeros, not empty memory: a masked NaN would still poison the row that masks it.
        self._keys = [torch.zeros(size, dtype=dtype, device=device) for _ in range(layers)]
        self._values = [torch.zeros(size, dtype=dtype, device=device) for _ in range(layers)]
        self.broken: dict[int, int] = {}
        """Slots of rows that are no numbers: nothing stands there. Each with the first layer of the
        model whose output was none."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(tensor.nbytes for tensor in (*self._keys, *self._values))

    def reserve(self, slots: int) -> None:
        """Make room for this many slots. Raises LocalError if that is more than `most`."""
        if slots <= self._slots:
            return
        if self._most is not None and slots > self._most:
            raise LocalError(f"{slots} slots of a cache that may have {self._most}")
        size = self._slots or 1
        while size < slots:
            size *= 2
        self._slots = size if self._most is None else min(size, self._most)
        for kept in (self._keys, self._values):
            for layer, old in enumerate(kept):
                kept[layer] = old.new_zeros(old.shape[0], self._slots, old.shape[2])
                kept[layer][:, : old.shape[1]] = old

    def copy(self, source: "KVCache", slots: Tensor) -> None:
        """Take over the entries in `slots` [rows] of another cache of the same layers, as those of
        slots 0..rows-1 here."""
        rows = len(slots)
        self.reserve(rows)
        for mine, theirs in ((self._keys, source._keys), (self._values, source._values)):
            for entries, others in zip(mine, theirs, strict=True):
                torch.index_select(others, 1, slots, out=entries[:, :rows])
        self.broken = source._broken_of(slots)

    def keep(self, slots: Tensor) -> None:
        """Hold nothing but the entries in `slots` [rows], as those of slots 0..rows-1, and no
        memory beyond them."""
        for kept in (self._keys, self._values):
            for layer, entries in enumerate(kept):
                kept[layer] = entries.index_select(1, slots)
        self._slots = len(slots)
        self.broken = self._broken_of(slots)

    def _broken_of(self, slots: Tensor) -> dict[int, int]:
        """What is broken in `slots`, by the place in there."""
        if not self.broken:
            return {}
        places = enumerate(slots.tolist())
        return {place: self.broken[slot] for place, slot in places if slot in self.broken}

    def clear(self, slots: Tensor) -> None:
        """Wipe out what stands in `slots` [rows]."""
        for entries in (*self._keys, *self._values):
            entries.index_fill_(1, slots, 0.0)

    def clear_broken(self, among: Tensor) -> None:
        """Wipe out those of the slots `among` [rows] whose values are no numbers at some layer."""
        sound = torch.ones(len(among), dtype=torch.bool, device=among.device)
        for values in self._values:
            sound &= values.index_select(1, among).isfinite().all(-1).all(0)
        self.clear(among[~sound])

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put keys and values [rows, kv_heads, head_dim] of one layer into `slots` [rows]."""
        self._keys[layer].index_copy_(1, slots, keys.transpose(0, 1))
        self._values[layer].index_copy_(1, slots, values.transpose(0, 1))

    def read(self, layer: int, high: int) -> tuple[Tensor, Tensor]:
        """Keys and values of slots 0..high-1, [kv_heads, high, head_dim], without a copy."""
        return self._keys[layer][:, :high], self._values[layer][:, :high]
