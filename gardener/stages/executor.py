"""What a stage computes: placed segments in, computed ones out.

Runs on the worker thread, which owns all tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from gardener.errors import RemoteError
from gardener.model.architecture import Architecture
from gardener.model.attention import Span
from gardener.model.checkpoint.slices import Slice
from gardener.model.kv_cache import KVCache, slot_bytes
from gardener.model.kv_slots import Ints, Placement, merge
from gardener.model.llama import Block, run_blocks
from gardener.model.rotary import Rotary
from gardener.model.tensors import DTYPES, dtype_of, pack
from gardener.protocol import messages, tensors
from gardener.protocol.room import SLOT_BLOCK
from gardener.stages.ends import Intake, Outlet, check_picking
from gardener.stages.forward import ComputedSegment, PlacedSegment

_STEP = SLOT_BLOCK
"""In 16 bits on the CPU, attention runs over slots in multiples of this: oneDNN compiles a kernel,
for a millisecond and for some 100 kB that it keeps, for every width it has not met before."""


class Executor:
    """A slice of the model with the caches of its requests."""

    def __init__(
        self,
        architecture: Architecture,
        held: Slice,
        blocks: Sequence[Block],
        intake: Intake,
        outlet: Outlet,
        *,
        dtype: str,
        device: torch.device,
        quant: str,
        fingerprint: str,
    ) -> None:
        self.architecture, self.slice, self.width = architecture, held, architecture.width
        self.dtype, self.quant, self.fingerprint = dtype, quant, fingerprint
        self.memory = sum(block.nbytes for block in blocks) + intake.nbytes + outlet.nbytes
        self.device, self._torch_dtype = device, dtype_of(dtype)
        self.kv_slot = slot_bytes(len(blocks), architecture, self._torch_dtype)
        """Bytes of keys and values that one slot takes."""
        self._blocks, self._intake, self._outlet = blocks, intake, outlet
        sixteen = self._torch_dtype != torch.float32
        self._step = _STEP if sixteen and device.type == "cpu" else 1
        self._windows = {architecture.windows[layer] for layer in range(held.first, held.end)}
        self._rotary = Rotary(architecture, self._torch_dtype, device)
        self._caches: dict[int, KVCache] = {}

    @property
    def threads(self) -> int:
        """Of the processor that compute a pass; 0: another device does. For the worker thread."""
        return torch.get_num_threads() if self.device.type == "cpu" else 0

    @property
    def kv_memory(self) -> int:
        """Bytes of keys and values that are held now. For the worker thread."""
        return sum(cache.nbytes for cache in self._caches.values())

    def check_open(self, message: messages.Open) -> None:
        """Raise StageFailed if the tokens of a request cannot be picked as it wishes. For the event
        loop."""
        check_picking(message, self.architecture.vocab)

    @torch.inference_mode()
    def open(self, message: messages.Open, shared: Ints | None = None) -> None:
        """A request begins. `shared`: where the rows of its prefix, if it has one, stand in the
        cache of the request that it takes them from. Raises RemoteError if that has none."""
        cache = KVCache(
            len(self._blocks), self.architecture, self._torch_dtype, self.device, message.slots
        )
        if message.prefix is not None and shared is not None:
            source = self._caches.get(message.prefix[0])
            if source is None:
                raise RemoteError(f"request {message.prefix[0]} has no keys and values here")
            cache.copy(source, torch.from_numpy(shared).to(self.device))
        self._caches[message.request] = cache

    @torch.inference_mode()
    def keep(self, request: int, slots: Ints) -> None:
        """A request ends, but the rows in these slots are kept, as slots 0, 1 and so on, until it
        is closed."""
        self._caches[request].keep(torch.from_numpy(slots).to(self.device))

    def close(self, request: int) -> None:
        """A request ends: its cache is freed. Closing twice is no error."""
        self._caches.pop(request, None)

    def check(self, segment: messages.Segment) -> None:
        """Raise RemoteError for a segment that cannot be computed here. For the event loop: reads
        nothing that the worker thread writes."""
        self._intake.check(segment)
        vocabulary = self.architecture.vocab
        if max(segment.tokens, default=0) >= vocabulary:
            raise RemoteError(f"token {max(segment.tokens)} is not in a vocabulary of {vocabulary}")
        if segment.features:
            tap = segment.features[0]
            if tap.shape[1] != self.width or DTYPES[tap.dtype] != self._torch_dtype:
                raise RemoteError(
                    f"features came as {tap.dtype}, {tap.shape[1]} wide; the hidden states here "
                    f"are {self.dtype}, {self.width} wide"
                )

    @torch.inference_mode()
    def run(self, batch: Sequence[PlacedSegment]) -> list[ComputedSegment] | None:
        """One forward pass, a result for each segment; None if all were cancelled on the way.

        Every request must be open. Segments of one request come in the order of their placements.
        """
        if not sum(placed.rows for placed in batch):
            return [ComputedSegment() for _ in batch]
        order = sorted(range(len(batch)), key=lambda i: batch[i].request)
        done = self._forward([batch[i] for i in order])
        if done is None:
            return None
        results = dict(zip(order, done, strict=True))
        return [results[i] for i in range(len(batch))]

    def _forward(self, batch: Sequence[PlacedSegment]) -> Sequence[ComputedSegment] | None:
        """The same for a batch in which the segments of one request stand side by side."""
        spans, positions = self._spans(batch)
        cos, sin = self._rotary.at(
            torch.from_numpy(positions).to(self.device), int(positions.max())
        )
        flags = [placed.cancelled for placed in batch]
        hidden = run_blocks(
            self._blocks,
            self._intake(batch),
            cos,
            sin,
            spans,
            lambda: all(flag.is_set() for flag in flags),
            taps := self._taps(batch),
        )
        if hidden is None:
            return None
        done = self._outlet(hidden, batch)
        return self._add_taps(taps, batch, done) if taps else done

    def _taps(self, batch: Sequence[PlacedSegment]) -> dict[int, torch.Tensor | None]:
        """The blocks before which somebody wants the hidden states, by index, ascending."""
        first, end = self.slice.first, self.slice.end
        wanted = {tap for placed in batch for tap in placed.taps if first <= tap < end}
        return {tap - first: None for tap in sorted(wanted)}

    def _add_taps(
        self,
        taps: Mapping[int, torch.Tensor | None],
        batch: Sequence[PlacedSegment],
        done: Sequence[ComputedSegment],
    ) -> list[ComputedSegment]:
        """The outlet's results with what each segment asked for of `taps`, [rows of the batch,
        width], which stand before what the outlet may have added."""
        rows = [placed.rows for placed in batch]
        own: list[list[tensors.Tensor]] = [[] for _ in batch]
        for index, states in taps.items():
            assert states is not None  # all blocks have run
            parts = torch.split(states.cpu(), rows)
            for placed, part, features in zip(batch, parts, own, strict=True):
                if self.slice.first + index in placed.taps:
                    features.append(pack(part))
        return [
            replace(computed, features=(*features, *computed.features))
            for computed, features in zip(done, own, strict=True)
        ]

    def _spans(self, batch: Sequence[PlacedSegment]) -> tuple[list[Span], np.ndarray]:
        """The batch as one span per request, and the positions [rows] of all rows."""
        by_request: dict[int, list[Placement]] = {}
        for placed in batch:
            by_request.setdefault(placed.request, []).append(placed.placement)
        spans: list[Span] = []
        positions = []
        first = 0
        for request, placements in by_request.items():
            placement = merge(placements)
            if not len(placement.slots):
                continue
            spans.append(
                Span.of(
                    placement,
                    self._caches[request],
                    self.device,
                    first=first,
                    step=self._step,
                    windows=self._windows,
                )
            )
            positions.append(placement.positions)
            first += len(placement.slots)
        return spans, np.concatenate(positions)
