"""Keys and values of one request, in slots.

Which slot a row is written to, which slots it sees and what is moved is decided elsewhere
(`kv_slots.SlotTable`).
"""

from collections.abc import Callable
from typing import Self, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gardener.errors import LocalError
from gardener.model.architecture import Architecture
from gardener.model.placement import Ints, Moves

_FIRST_SIZE = 256

_SLOW_COPIES = ("mps",)
"""Types of devices on which `index_copy_` is missing before torch 2.8, and slow for long after: it
took 135 ms for 4096 rows of 4096 numbers."""


def kept_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What keys and values of a model of this dtype are kept in. On the CPU attention computes in
    float32, of which a number of 16 bits is one: they are widened once, not in every pass."""
    return torch.float32 if device.type == "cpu" else dtype


def slot_bytes(layers: int, architecture: Architecture, kept: torch.dtype) -> int:
    """Bytes that keys and values of one row take in this many layers; `kept`: see `kept_dtype`."""
    return 2 * layers * architecture.kv_heads * architecture.head_dim * kept.itemsize


Put: TypeAlias = Callable[[Tensor, int, Tensor, Tensor], None]
"""Puts rows (the last argument) into some slots of a dimension of a tensor."""


def put_for(device: torch.device) -> Put:
    """How to do so on this device."""
    return _by_index if device.type in _SLOW_COPIES else _copied


def _copied(entries: Tensor, dim: int, slots: Tensor, rows: Tensor) -> None:
    """In one operation."""
    entries.index_copy_(dim, slots, rows)


def _by_index(entries: Tensor, dim: int, slots: Tensor, rows: Tensor) -> None:
    """Without it."""
    entries.transpose(0, dim)[slots] = rows.transpose(0, dim)


class KVCache:
    """Keys and values [layers, kv_heads, slots, head_dim]; they double when slots run out, but
    never hold more than `most` slots (None: as many as are asked for). `fixed`: they have all of
    them from the beginning, at addresses that stay."""

    def __init__(
        self,
        layers: int,
        architecture: Architecture,
        dtype: torch.dtype,
        device: torch.device,
        most: int | None = None,
        fixed: bool = False,
    ) -> None:
        """`dtype`: of the model."""
        self._most, self._arguments = most, (layers, architecture, dtype, device)
        self._slots = _FIRST_SIZE if most is None else min(_FIRST_SIZE, most)
        if fixed and most is not None:
            self._slots = most
        size = (layers, architecture.kv_heads, self._slots, architecture.head_dim)
        # Zeros, not empty memory: a masked NaN would still poison the row that masks it.
        self._keys = torch.zeros(size, dtype=kept_dtype(dtype, device), device=device)
        self._values = torch.zeros_like(self._keys)
        self._view()
        self._put = put_for(device)
        self.broken: dict[int, int] = {}
        """Slots of rows that are no numbers: nothing stands there. Each with the first layer of the
        model whose output was none."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._keys.nbytes + self._values.nbytes

    @property
    def slots(self) -> int:
        """Slots that there are now."""
        return self._slots

    def reserve(self, slots: int, block: int = 1) -> None:
        """Make room for this many slots, in whole blocks of so many if there may be as many. Raises
        LocalError if `slots` is more than `most`."""
        if self._most is not None and slots > self._most:
            raise LocalError(f"{slots} slots of a cache that may have {self._most}")
        slots = -(-slots // block) * block
        if self._most is not None:
            slots = min(slots, self._most)
        if slots <= self._slots:
            return
        size = self._slots or 1
        while size < slots:
            size *= 2
        self._slots = size if self._most is None else min(size, self._most)
        self._keys, self._values = self._grown(self._keys), self._grown(self._values)
        self._view()

    def _view(self) -> None:
        """Views of each layer, made once: to make them in every pass would take as long as to
        write a row."""
        self._layers = list(zip(self._keys.unbind(), self._values.unbind(), strict=True))

    def _grown(self, old: Tensor) -> Tensor:
        layers, kv_heads, slots, head_dim = old.shape
        grown = old.new_zeros(layers, kv_heads, self._slots, head_dim)
        grown[:, :, :slots] = old
        return grown

    def copy(self, source: Self, slots: Ints) -> None:
        """Take over the entries in `slots` [rows] of another cache of the same layers, as those of
        slots 0..rows-1 here."""
        rows, there = len(slots), source._there(slots)
        self.reserve(rows)
        self._keys[:, :, :rows] = source._keys.index_select(2, there)
        self._values[:, :, :rows] = source._values.index_select(2, there)
        self.broken = source._broken_of(slots)

    def kept(self, slots: Ints) -> "KVCache":
        """One that holds nothing but the entries in `slots` [rows], as those of slots 0..rows-1,
        and no memory beyond them."""
        kept = KVCache(*self._arguments, most=len(slots), fixed=True)
        kept._most = self._most
        kept.copy(self, slots)
        return kept

    def move(self, moves: Moves) -> None:
        """Put what stands in the sources into the targets, all at once."""
        self.reserve(int(moves.targets.max()) + 1)
        sources, targets = self._there(np.stack(moves))
        for entries in (self._keys, self._values):
            self._put(entries, 2, targets, entries.index_select(2, sources))
        if self.broken:
            sources_of = map(self.broken.get, moves.sources.tolist())
            for slot, layer in zip(moves.targets.tolist(), sources_of, strict=True):
                self.broken.pop(slot, None)
                if layer is not None:
                    self.broken[slot] = layer

    def _there(self, slots: Ints) -> Tensor:
        """Slots as a tensor where the entries are."""
        return torch.from_numpy(slots).to(self._keys.device)

    def _broken_of(self, slots: Ints) -> dict[int, int]:
        """What is broken in `slots`, by the place in there."""
        if not self.broken:
            return {}
        places = enumerate(slots.tolist())
        return {place: self.broken[slot] for place, slot in places if slot in self.broken}

    def empty(self) -> None:
        """Wipe out all that stands here."""
        self._keys.zero_()
        self._values.zero_()
        self.broken = {}

    def clear(self, slots: Ints) -> None:
        """Wipe out what stands in `slots` [rows]."""
        for entries in (self._keys, self._values):
            entries.index_fill_(2, self._there(slots), 0.0)

    def clear_broken(self, among: Ints) -> None:
        """Wipe out those of the slots `among` [rows] whose values are no numbers at some layer."""
        sound = self._values.index_select(2, self._there(among)).isfinite().all(-1).all(0).all(0)
        self.clear(among[~sound.cpu().numpy()])

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put keys and values [rows, kv_heads, head_dim] of one layer into `slots` [rows]."""
        own_keys, own_values = self._layers[layer]
        self._put(own_keys, 1, slots, keys.transpose(0, 1).to(own_keys.dtype))
        self._put(own_values, 1, slots, values.transpose(0, 1).to(own_values.dtype))

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots there are, [kv_heads, slots, head_dim], without a copy."""
        return self._layers[layer]
