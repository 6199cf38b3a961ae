"""How the layers of a stage compute a pass: what an `Executor` asks, and the way of the CPU."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.attention import CachedRows, Span
from gardener.model.attention_trial import least_lines
from gardener.model.block import Layer, run_blocks
from gardener.model.checkpoint.slices import Slice
from gardener.model.exact_attention import ExactSpan
from gardener.model.kv_cache import KVCache
from gardener.model.placement import Placement
from gardener.model.rotary import Rotary
from gardener.model.wide_attention import wide_attention


class Text(NamedTuple):
    """The rows of one request in a pass, at least one, and the cache they belong to."""

    placement: Placement
    cache: KVCache


Stopped = Callable[[int], bool]
"""Whether a pass is to be stopped before the block with this index."""


class Passes(Protocol):
    """The layers of a stage, and the caches of its requests.

    blocks  the layers, in order
    spread  how far attention takes a row from itself in another batch, as a part of its size
    waste   how many times the slots that a request asks for its cache may have
    """

    blocks: Sequence[Layer]
    spread: float
    waste: int

    def cache(self, slots: int) -> KVCache:
        """An empty one for a request that may come to need so many slots."""

    def free(self, cache: KVCache) -> None:
        """Nobody needs this one any more."""

    def filled(self, rows: int) -> int:
        """How many rows are computed in the place of so few."""

    def run(
        self,
        texts: Sequence[Text],
        rows: Tensor,
        stopped: Stopped,
        taps: dict[int, Tensor | None],
    ) -> Tensor | None:
        """What leaves the last layer, on the device of the layers: [rows, width], until
        anything else is computed. None if it was stopped.

        rows  what enters the first layer, in this machine's memory: those of one text after those
              of the other
        taps  what enters the blocks with these indices is put here
        """

    def weigh(self, text: Text, rows: Tensor, now: Callable[[], float]) -> None:
        """Find out how passes of several requests are computed best, by those of this one, which
        has few rows. `now` is a clock."""


def slice_windows(architecture: Architecture, held: Slice) -> frozenset[int | None]:
    """Sliding windows of the layers of a stage."""
    return frozenset(architecture.windows[held.first : held.end])


class HostPasses:
    """On the CPU. See `Passes`."""

    spread = 0.0
    """By `exact_attention` or in float64, attention does not take it anywhere."""

    waste = 1

    def __init__(
        self, architecture: Architecture, held: Slice, blocks: Sequence[Layer], dtype: torch.dtype
    ) -> None:
        self.blocks = blocks
        self._architecture, self._dtype = architecture, dtype
        self._device = torch.device("cpu")
        self._windows = slice_windows(architecture, held)
        self._rotary = Rotary(architecture, dtype, self._device)
        a = architecture
        group = a.heads // a.kv_heads
        self._lines = least_lines(a.kv_heads, group, a.head_dim, torch.get_num_threads())

    def cache(self, slots: int) -> KVCache:
        """See `Passes`."""
        layers = len(self.blocks)
        return KVCache(layers, self._architecture, self._dtype, self._device, slots)

    def free(self, cache: KVCache) -> None:
        """See `Passes`."""

    def filled(self, rows: int) -> int:
        """See `Passes`."""
        return rows

    def run(
        self,
        texts: Sequence[Text],
        rows: Tensor,
        stopped: Stopped,
        taps: dict[int, Tensor | None],
    ) -> Tensor | None:
        """See `Passes`."""
        spans: list[CachedRows] = []
        for text in texts:
            spans.append(self._span(text, spans[-1].end if spans else 0))
        positions = np.concatenate([text.placement.positions for text in texts])
        rotations = self._rotary.at(torch.from_numpy(positions), int(positions.max()))
        return run_blocks(self.blocks, rows, rotations, spans, stopped, taps)

    def weigh(self, text: Text, rows: Tensor, now: Callable[[], float]) -> None:
        """See `Passes`. There is but one way."""

    def _span(self, text: Text, first: int) -> CachedRows:
        """Rows of one request, which begin at row `first` of the pass."""
        placement, cache = text
        if self._lines is not None:
            heads = self._architecture.heads
            return ExactSpan(
                placement, cache, heads, self._lines, first=first, windows=self._windows
            )
        return Span.of(
            placement, cache, self._device, wide_attention, first=first, windows=self._windows
        )
