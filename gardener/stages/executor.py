"""What a stage computes: placed segments in, computed ones out.

Runs on the worker thread, which owns all tensors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from gardener.errors import RemoteError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.slices import Slice
from gardener.model.device.fetch import Fetch
from gardener.model.device.laps import Laps
from gardener.model.finite import is_finite
from gardener.model.kernels import machine
from gardener.model.kv_cache import KVCache, kept_dtype, slot_bytes
from gardener.model.placement import Ints, Placement, merge
from gardener.model.tensors import DTYPES, dtype_of, pack
from gardener.protocol import messages, tensors
from gardener.stages import broken
from gardener.stages.ends import Intake, Outlet
from gardener.stages.forward import NO_PICK, ComputedSegment, PlacedSegment
from gardener.stages.passes import Passes, Text
from gardener.stages.picks import check_picking


class Executor:
    """A slice of the model with the caches of its requests."""

    def __init__(
        self,
        architecture: Architecture,
        held: Slice,
        passes: Passes,
        intake: Intake,
        outlet: Outlet,
        *,
        dtype: str,
        device: torch.device,
        quant: str,
        quant_head: str,
        fingerprint: str,
        spread: float,
    ) -> None:
        """`passes`: of the layers `held`. `quant_head`: of the head, wherever it is. `spread`: that
        of the linear layers, see `kernels.interface.Linear`."""
        self.architecture, self.slice, self.width = architecture, held, architecture.width
        self.dtype, self.quant, self.fingerprint = dtype, quant, fingerprint
        self.quant_head = quant_head
        layers = sum(block.nbytes for block in passes.blocks)
        self.memory = layers + intake.nbytes + outlet.nbytes
        self.device, self._torch_dtype = device, dtype_of(dtype)
        kept = kept_dtype(self._torch_dtype, device)
        self.kv_slot = slot_bytes(held.end - held.first, architecture, kept)
        """Bytes of keys and values that one slot takes."""
        self.passes, self._intake, self._outlet = passes, intake, outlet
        self._fetch = Fetch(device)
        self.layer = held.first
        """See `Computes.layer`."""
        self.spread = max(spread, passes.spread)
        """How far a row may be from itself in another batch, as a part of its size."""
        self._caches: dict[int, KVCache] = {}

    @property
    def threads(self) -> int:
        """Of the processor that compute a pass; 0: another device does. For the worker thread."""
        return torch.get_num_threads() if self.device.type == "cpu" else 0

    @property
    def loads_kernels(self) -> bool:
        """Whether the first pass of each size takes much longer than those after it."""
        return machine.has_own_kernels(self.device)

    def filled(self, rows: int) -> int:
        """How many rows are computed in the place of so few."""
        return self.passes.filled(rows)

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
        source = None
        if message.prefix is not None and shared is not None:
            source = self._caches.get(message.prefix[0])
            if source is None:
                raise RemoteError(f"request {message.prefix[0]} has no keys and values here")
        cache = self._caches[message.request] = self.passes.cache(message.slots)
        if source is not None and shared is not None:
            cache.copy(source, shared)

    @torch.inference_mode()
    def keep(self, request: int, slots: Ints) -> None:
        """A request ends, but the rows in these slots are kept, as slots 0, 1 and so on, until it
        is closed."""
        cache = self._caches[request]
        self._caches[request] = cache.kept(slots)
        self.passes.free(cache)

    def close(self, request: int) -> None:
        """A request ends: its cache is freed. Closing twice is no error."""
        cache = self._caches.pop(request, None)
        if cache is not None:
            self.passes.free(cache)

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
            self._move(batch)
            return [ComputedSegment() for _ in batch]
        order = sorted(range(len(batch)), key=lambda i: batch[i].request)
        sorted_batch = [batch[i] for i in order]
        done = self.forward(sorted_batch)
        if done is None:
            return None
        results = dict(zip(order, self._mended(sorted_batch, done), strict=True))
        return [results[i] for i in range(len(batch))]

    @torch.inference_mode()
    def forward(self, batch: Sequence[PlacedSegment]) -> Sequence[ComputedSegment] | None:
        """The same for a batch in which the segments of one request stand side by side, and of
        which nobody looks whether it comes to numbers."""
        self._move(batch)
        flags = [placed.cancelled for placed in batch]
        taps = self._taps(batch)
        hidden = self._hidden(batch, lambda: all(flag.is_set() for flag in flags), taps)
        return None if hidden is None else self._results(hidden, batch, taps)

    @torch.inference_mode()
    def timed(
        self, batch: Sequence[PlacedSegment], now: Callable[[], float]
    ) -> tuple[float, float]:
        """Compute a batch of which nobody wants taps; the seconds until it has left the blocks, and
        those of what follows (the head, at the last stage). `now` is a clock."""
        laps = Laps(self.device, now)
        hidden = self._hidden(batch, lambda: False, {})
        assert hidden is not None  # nobody stops it
        laps.mark()
        self._results(hidden, batch, {})
        blocks, end = laps.split()
        return blocks, end

    @torch.inference_mode()
    def weigh(self, placed: PlacedSegment, now: Callable[[], float]) -> None:
        """Find out how passes of several requests are computed best, with the rows of this one."""
        (text,) = self._texts([placed])
        self.passes.weigh(text, self._intake([placed]), now)

    def _move(self, batch: Sequence[PlacedSegment]) -> None:
        """Put what has become certain where it belongs, even if nothing is computed then: later
        rows look for it there."""
        for placed in batch:
            moves = placed.placement.moves
            if moves is not None:
                self._caches[placed.request].move(moves)

    def _hidden(
        self,
        batch: Sequence[PlacedSegment],
        cancelled: Callable[[], bool],
        taps: dict[int, torch.Tensor | None],
    ) -> torch.Tensor | None:
        """What leaves the last block, [rows, width]; see `Passes.run`."""

        def stopped(index: int) -> bool:
            self.layer = self.slice.first + index
            return cancelled()

        hidden = self.passes.run(self._texts(batch), self._intake(batch), stopped, taps)
        self.layer = self.slice.end if self.slice.is_last else self.slice.end - 1
        return hidden

    def _results(
        self,
        hidden: torch.Tensor,
        batch: Sequence[PlacedSegment],
        taps: Mapping[int, torch.Tensor | None],
    ) -> Sequence[ComputedSegment]:
        """What becomes of the hidden states."""
        # Taps first: what the outlet does may stand where they do.
        features = self._features(taps, batch)
        done = self._outlet(hidden, batch)
        if not taps:
            return done
        return [
            replace(computed, features=(*own, *computed.features))
            for computed, own in zip(done, features, strict=True)
        ]

    def _taps(self, batch: Sequence[PlacedSegment]) -> dict[int, torch.Tensor | None]:
        """The blocks before which somebody wants the hidden states, by index, ascending."""
        first, end = self.slice.first, self.slice.end
        wanted = {tap for placed in batch for tap in placed.taps if first <= tap < end}
        return {tap - first: None for tap in sorted(wanted)}

    def _features(
        self, taps: Mapping[int, torch.Tensor | None], batch: Sequence[PlacedSegment]
    ) -> list[list[tensors.Tensor]]:
        """What each segment asked for of `taps`, [rows of the batch, width]. It stands before what
        the outlet may add."""
        rows = [placed.rows for placed in batch]
        own: list[list[tensors.Tensor]] = [[] for _ in batch]
        here = self._fetch.all([states for states in taps.values() if states is not None])
        for index, states in zip(taps, here, strict=True):  # all blocks have run
            for placed, part, features in zip(batch, torch.split(states, rows), own, strict=True):
                if self.slice.first + index in placed.taps:
                    features.append(pack(part))
        return own

    # --- what is no number: see `broken` -----------------------------------------------------

    def _mended(
        self, batch: Sequence[PlacedSegment], done: Sequence[ComputedSegment]
    ) -> Sequence[ComputedSegment]:
        """The results, with those of a request computed again if some of it came to no numbers, and
        marks at all rows that are broken or follow such a row."""
        unsound = {p.request for p, computed in zip(batch, done, strict=True) if not computed.sound}
        marked = {p.request for p in batch if p.broken or self._caches[p.request].broken}
        results = list(done)
        for request in unsound | marked:
            own = [index for index, placed in enumerate(batch) if placed.request == request]
            self._reuse([batch[index] for index in own], wipe=request in unsound)
            for index in own:
                placed = batch[index]
                again = self._again(placed) if request in unsound else results[index]
                results[index] = self._marked(placed, again)
        return results

    def _reuse(self, batch: Sequence[PlacedSegment], wipe: bool) -> None:
        """What was known of the slots that these rows of a request stand in is known no more.
        `wipe`: nor may stand there or in other slots what is no number."""
        cache = self._caches[batch[0].request]
        slots = np.concatenate([placed.placement.slots for placed in batch])
        for slot in slots.tolist():
            cache.broken.pop(slot, None)
        if wipe:
            cache.clear(slots)
            unseen = broken.unseen(batch)
            rest = max(cache.slots - len(unseen), 0)  # a device reads whole blocks of slots
            cache.clear_broken(np.flatnonzero(np.pad(unseen, (0, rest), constant_values=True)))

    def _again(self, placed: PlacedSegment) -> ComputedSegment:
        """A segment once more, in pieces: what is no number in one of them is seen by none of the
        others."""
        parts = list(broken.pieces(placed))
        return broken.joined([self._probed(part) for part in parts], [p.rows for p in parts])

    def _probed(self, placed: PlacedSegment) -> ComputedSegment:
        """A piece of a segment, looked at behind every layer. What is no number leaves nothing in
        the cache, and goes on as ones."""
        layers = self.slice.end - self.slice.first
        probes: dict[int, torch.Tensor | None] = dict.fromkeys(range(layers))
        hidden = self._hidden([placed], lambda: False, probes)
        assert hidden is not None  # nobody stops it
        layer = self._first_broken([*probes.values(), hidden])
        if layer is not None:
            slots = placed.placement.slots
            cache = self._caches[placed.request]
            cache.clear(slots)
            cache.broken.update(dict.fromkeys(slots.tolist(), layer))
            hidden = torch.ones_like(hidden)
        taps = {index: probes[index] for index in self._taps([placed])}
        (done,) = self._results(hidden, [placed], taps)
        if layer is None and not done.sound:  # the logits alone are too large
            return replace(done, broken=dict.fromkeys(placed.pick_rows, self.slice.layers))
        return done

    def _first_broken(self, states: Sequence[torch.Tensor | None]) -> int | None:
        """The layer whose output is no number, of what enters the layers of this stage, one after
        the other, and what leaves the last one; -1 is the embedding. None: all are numbers."""
        for layer, state in enumerate(states, self.slice.first - 1):
            if state is not None and not is_finite(state):
                return layer
        return None

    def _marked(self, placed: PlacedSegment, computed: ComputedSegment) -> ComputedSegment:
        """The results with marks at the rows that are broken: themselves, or since they see one
        that is. These have no pick."""
        cache, slots = self._caches[placed.request], placed.placement.slots
        for row, layer in placed.broken.items():
            cache.broken[int(slots[row])] = layer
        marks = {**broken.behind(placed.placement, cache.broken), **computed.broken}
        if not marks:
            return computed
        picked = zip(placed.pick_rows, computed.picks, strict=True) if computed.picks else ()
        picks = tuple(NO_PICK if row in marks else pick for row, pick in picked)
        return replace(computed, picks=picks, broken=marks)

    def _texts(self, batch: Sequence[PlacedSegment]) -> list[Text]:
        """The rows of the batch, by request."""
        by_request: dict[int, list[Placement]] = {}
        for placed in batch:
            if placed.rows:
                by_request.setdefault(placed.request, []).append(placed.placement)
        return [Text(merge(own), self._caches[request]) for request, own in by_request.items()]
