"""Where a text's keys, values and outputs stand on a device: at addresses that outlive it.

Texts come and go, and what is recorded for one serves the next one that takes its seat.
"""

from collections import deque
from typing import Protocol

import torch
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.device.graphs import Graphs
from gardener.model.kv_cache import KVCache
from gardener.model.placement import Ints
from gardener.model.rotary import Rotary, Rotation

FIRST_SLOTS = 1024
"""Slots of a seat at least, a power of two."""

MOST_FREE = 4
"""Seats without a text that are kept."""


class Seated(Protocol):
    """What a seat must know of a network."""

    @property
    def layers(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def shape(self) -> Architecture: ...
    @property
    def rotary(self) -> Rotary: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...


class ShiftingCache(KVCache):
    """One in which a device that was told of them makes moves by itself."""

    def shift(self, sources: Tensor, targets: Tensor) -> None:
        """Put what stands in slots `sources` [moves] into slots `targets`, all at once."""
        for entries in (self._keys, self._values):
            entries.index_copy_(2, targets, entries.index_select(2, sources))


class Seat:
    """Room for one text.

    number   of this seat alone
    slots    a power of two; the last one takes what rows without a meaning write
    cache    keys and values
    outputs  [slots + 1, outputs of the network] by slot, the last one is zero for good
    """

    def __init__(self, number: int, network: Seated, slots: int) -> None:
        self.number, self._network = number, network
        device = network.device
        self.cache = ShiftingCache(network.layers, network.shape, network.dtype, device)
        self.slots = 0
        self.outputs = torch.zeros(1, network.outputs, dtype=network.dtype, device=device)
        self._turns: list[Rotation] = []
        self.grow(slots)

    @property
    def dump(self) -> int:
        """The slot of rows without a meaning."""
        return self.slots - 1

    def rotations(self, positions: Tensor) -> list[Rotation]:
        """Of rows at these positions [rows], less than `slots`. It waits for nothing."""
        return [
            Rotation(turn.cos.index_select(0, positions), turn.sin.index_select(0, positions))
            for turn in self._turns
        ]

    def grow(self, slots: int) -> None:
        """Room for so many slots, a power of two. All addresses change."""
        self.cache.reserve(slots)
        grown = self.outputs.new_zeros(slots + 1, self.outputs.shape[1])
        grown[: self.slots] = self.outputs[:-1]
        self.outputs, self.slots = grown, slots
        places = torch.arange(slots, device=self._network.device)
        self._turns = list(self._network.rotary.at(places, slots - 1))

    def wipe(self) -> None:
        """Forget what a text has left: a masked NaN would poison the row that masks it."""
        self.cache.empty()
        self.outputs.zero_()

    def begin_as(self, other: "Seat", slots: Ints) -> None:
        """Take over what stands in these slots, 0 and so on, of another seat; there is room."""
        self.cache.copy(other.cache, slots)
        self.outputs[: len(slots)] = other.outputs[: len(slots)]


class Seats:
    """All seats of a network. What is recorded in `graphs` has keys that begin with the number of a
    seat, and is forgotten with its addresses. For one thread, but for `give_back`."""

    def __init__(self, network: Seated, *graphs: Graphs) -> None:
        self._network, self._graphs = network, graphs
        self._free: list[Seat] = []
        self._returned: deque[Seat] = deque()
        self._made = 0

    @torch.inference_mode()
    def take(self, slots: int) -> Seat:
        """A seat with room for so many slots and the last one."""
        self._tidy()
        wanted = _whole(slots)
        fitting = [seat for seat in self._free if seat.slots >= wanted]
        if fitting or self._free:
            seat = fitting[0] if fitting else self._free[-1]
            self._free.remove(seat)
            self.reserve(seat, slots)
            seat.wipe()
            return seat
        self._made += 1
        return Seat(self._made, self._network, wanted)

    def reserve(self, seat: Seat, slots: int) -> bool:
        """Make room in a seat for so many slots and the last one. Returns whether it has moved."""
        wanted = _whole(slots)
        if wanted <= seat.slots:
            return False
        self._forget(seat)
        seat.grow(wanted)
        return True

    def give_back(self, seat: Seat) -> None:
        """Its text is over. From any thread."""
        self._returned.append(seat)

    def _tidy(self) -> None:
        while self._returned:
            self._free.append(self._returned.popleft())
        self._free.sort(key=lambda seat: seat.slots)
        while len(self._free) > MOST_FREE:
            self._forget(self._free.pop(0))

    def _forget(self, seat: Seat) -> None:
        for graphs in self._graphs:
            graphs.forget(lambda key: isinstance(key, tuple) and key[0] == seat.number)


def _whole(slots: int) -> int:
    """Slots of a seat that has room for so many and the last one."""
    return max(FIRST_SLOTS, 1 << slots.bit_length())
