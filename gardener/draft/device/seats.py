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

MOST_RECORDED = 384
"""Recordings that are kept: a text needs seven or eight, so these are for about fifty at once."""

WASTE = 4
"""A text may get a seat that is there, of up to so many times the size that it needs."""


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

    def grow(self, slots: int) -> None:
        """Have so many slots, no fewer than there are, and none beyond them."""
        self._most = slots
        self.reserve(slots)

    def shift(self, sources: Tensor, targets: Tensor) -> None:
        """Put what stands in slots `sources` [moves] into slots `targets`, all at once."""
        for entries in (self._keys, self._values):
            self._put(entries, 2, targets, entries.index_select(2, sources))


class Seat:
    """Room for one text.

    number   of this seat alone
    slots    a power of two
    cache    keys and values, of these and of the `dump` behind them
    outputs  [slots + 2, outputs of the network] by slot, with that of the dump, and of `nothing`
    """

    def __init__(self, number: int, network: Seated, slots: int) -> None:
        self.number, self._network = number, network
        device = network.device
        arguments = network.layers, network.shape, network.dtype, device
        self.cache = ShiftingCache(*arguments, most=slots + 1, fixed=True)
        self.slots = 0
        self.outputs = torch.zeros(2, network.outputs, dtype=network.dtype, device=device)
        self._turns: list[Rotation] = []
        self.grow(slots)

    @property
    def dump(self) -> int:
        """The slot of rows without a meaning. It lies behind all that is looked at: whatever they
        leave there, no row of a text sees it."""
        return self.slots

    @property
    def nothing(self) -> int:
        """The place of an output that is zero for good."""
        return self.slots + 1

    def rotations(self, positions: Tensor) -> list[Rotation]:
        """Of rows at these positions [rows], at most `dump`. It waits for nothing."""
        return [
            Rotation(turn.cos.index_select(0, positions), turn.sin.index_select(0, positions))
            for turn in self._turns
        ]

    def grow(self, slots: int) -> None:
        """Room for so many slots, a power of two. All addresses change."""
        self.cache.grow(slots + 1)
        grown = self.outputs.new_zeros(slots + 2, self.outputs.shape[1])
        grown[: self.slots] = self.outputs[: self.slots]
        self.outputs, self.slots = grown, slots
        # What is rotated for the dump has no meaning: no table need grow for it.
        places = torch.arange(slots + 1, device=self._network.device).clamp_(max=slots - 1)
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
    seat, and is forgotten with its addresses. For one thread, but for `give_back`.

    Whenever a seat is made or grown, no free one is beside it: so seats never hold more than
    `WASTE` times what texts needed at some time.
    """

    def __init__(self, network: Seated, *graphs: Graphs) -> None:
        self._network, self._graphs = network, graphs
        self._free: list[Seat] = []
        self._returned: deque[Seat] = deque()
        self._made = 0

    @torch.inference_mode()
    def take(self, slots: int) -> Seat:
        """A seat with room for so many slots."""
        self._tidy(MOST_FREE)
        wanted = _whole(slots)
        fitting = [seat for seat in self._free if wanted <= seat.slots <= WASTE * wanted]
        if fitting:
            self._free.remove(fitting[0])
            fitting[0].wipe()
            return fitting[0]
        self._tidy(0)
        self._made += 1
        return Seat(self._made, self._network, wanted)

    def reserve(self, seat: Seat, slots: int) -> bool:
        """Make room in a seat for so many slots. Returns whether it has moved."""
        wanted = _whole(slots)
        if wanted <= seat.slots:
            return False
        self._tidy(0)
        self._forget(seat)
        seat.grow(wanted)
        return True

    def give_back(self, seat: Seat) -> None:
        """Its text is over. From any thread."""
        self._returned.append(seat)

    def _tidy(self, most: int) -> None:
        """Keep the largest free ones, at most so many."""
        while self._returned:
            self._free.append(self._returned.popleft())
        self._free.sort(key=lambda seat: seat.slots)
        while len(self._free) > most:
            self._forget(self._free.pop(0))

    def _forget(self, seat: Seat) -> None:
        for graphs in self._graphs:
            graphs.forget(lambda key: isinstance(key, tuple) and key[0] == seat.number)


def _whole(slots: int) -> int:
    """Slots of a seat that has room for so many, at least one."""
    return max(FIRST_SLOTS, 1 << (slots - 1).bit_length())
