"""A stage: segments in, segments out. Runs on the worker thread, which owns all tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from gardener.errors import RemoteError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.slices import Slice
from gardener.model.kv_cache import KVCache
from gardener.model.kv_slots import Mask, Placement, merge, within
from gardener.model.llama import Block, Span, run_blocks
from gardener.model.rotary import Rotary
from gardener.model.tensors import DTYPES, dtype_of, pack
from gardener.protocol import messages
from gardener.stages.ends import Intake, Outlet
from gardener.stages.jobs import Job, Result

_STEP = 64
"""In 16 bits on the CPU, attention runs over slots in multiples of this: oneDNN compiles a kernel,
for a millisecond and for some 100 kB that it keeps, for every width it has not met before."""


class Stage:
    """A slice of the model with the caches of its requests."""

    def __init__(
        self,
        shape: Architecture,
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
        self.shape, self.slice, self.width = shape, held, shape.width
        self.dtype, self.quant, self.fingerprint = dtype, quant, fingerprint
        self.memory = sum(block.nbytes for block in blocks) + intake.nbytes + outlet.nbytes
        self._device, self._torch_dtype = device, dtype_of(dtype)
        self._blocks, self._intake, self._outlet = blocks, intake, outlet
        sixteen = self._torch_dtype != torch.float32
        self._step = _STEP if sixteen and device.type == "cpu" else 1
        self._windows = {shape.windows[layer] for layer in range(held.first, held.end)}
        self._rotary = Rotary(shape, self._torch_dtype, device)
        self._caches: dict[int, KVCache] = {}

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.shape.context

    @property
    def threads(self) -> int:
        """Of the processor that compute a pass; 0: another device does. For the worker thread."""
        return torch.get_num_threads() if self._device.type == "cpu" else 0

    def open(self, request: int) -> None:
        """A request begins."""
        self._caches[request] = KVCache(
            len(self._blocks), self.shape, self._torch_dtype, self._device
        )

    def close(self, request: int) -> None:
        """A request ends: its cache is freed. Closing twice is no error."""
        self._caches.pop(request, None)

    def check(self, segment: messages.Segment) -> None:
        """Raise RemoteError for a segment that cannot be computed here. For the event loop: reads
        nothing that the worker thread writes."""
        self._intake.check(segment)
        if segment.features:
            tap = segment.features[0]
            if tap.shape[1] != self.width or DTYPES[tap.dtype] != self._torch_dtype:
                raise RemoteError(
                    f"features came as {tap.dtype}, {tap.shape[1]} wide; the hidden states here "
                    f"are {self.dtype}, {self.width} wide"
                )

    @torch.inference_mode()
    def run(self, jobs: Sequence[Job]) -> list[Result] | None:
        """One forward pass for all jobs, a result for each; None if all were cancelled on the way.

        Every request must be open. Jobs of one request come in the order of their placements.
        """
        if not sum(job.rows for job in jobs):
            return [Result() for _ in jobs]
        order = sorted(range(len(jobs)), key=lambda i: jobs[i].request)
        batch = [jobs[i] for i in order]
        spans, positions = self._spans(batch)
        cos, sin = self._rotary.at(
            torch.from_numpy(positions).to(self._device), int(positions.max())
        )
        flags = [job.cancelled for job in batch]
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
        if taps:
            done = self._add_taps(taps, batch, done)
        results = dict(zip(order, done, strict=True))
        return [results[i] for i in range(len(jobs))]

    def _taps(self, batch: Sequence[Job]) -> dict[int, torch.Tensor | None]:
        """The blocks before which somebody wants the hidden states, by index, ascending."""
        first, end = self.slice.first, self.slice.end
        wanted = {tap for job in batch for tap in job.taps if first <= tap < end}
        return {tap - first: None for tap in sorted(wanted)}

    def _add_taps(
        self, taps: Mapping[int, torch.Tensor | None], batch: Sequence[Job], done: Sequence[Result]
    ) -> list[Result]:
        """The outlet's results with what each job asked for of `taps`, [rows of the batch, width],
        which stand before what the outlet may have added."""
        rows = [job.rows for job in batch]
        own: list[list[messages.Tensor]] = [[] for _ in batch]
        for index, states in taps.items():
            assert states is not None  # all blocks have run
            parts = torch.split(states.cpu(), rows)
            for job, part, features in zip(batch, parts, own, strict=True):
                if self.slice.first + index in job.taps:
                    features.append(pack(part))
        return [
            replace(result, features=(*features, *result.features))
            for result, features in zip(done, own, strict=True)
        ]

    def _spans(self, batch: Sequence[Job]) -> tuple[list[Span], np.ndarray]:
        """The batch as one span per request, and the positions [rows] of all rows."""
        by_request: dict[int, list[Placement]] = {}
        for job in batch:
            by_request.setdefault(job.request, []).append(job.placement)
        spans: list[Span] = []
        positions = []
        first = 0
        for request, placements in by_request.items():
            placement = merge(placements)
            if not len(placement.slots):
                continue
            spans.append(self._span(first, self._caches[request], placement))
            positions.append(placement.positions)
            first += len(placement.slots)
        return spans, np.concatenate(positions)

    def _span(self, first: int, cache: KVCache, placement: Placement) -> Span:
        high = -(-placement.high // self._step) * self._step
        cache.reserve(high)
        biases = {}
        for window in self._windows:
            mask = placement.mask if window is None else within(placement, window)
            biases[window] = self._bias(mask, len(placement.slots), placement.high, high)
        return Span(
            first=first,
            end=first + len(placement.slots),
            cache=cache,
            slots=torch.from_numpy(placement.slots).to(self._device),
            high=high,
            biases=biases,
        )

    def _bias(self, mask: Mask | None, rows: int, high: int, width: int) -> torch.Tensor | None:
        """A mask [rows, high] as what is added to the scores [rows, width]; None: nothing."""
        if mask is None and high == width:
            return None
        bias = np.full((rows, width), -np.inf, np.float32)
        bias[:, :high] = 0.0 if mask is None else np.where(mask, np.float32(0.0), -np.inf)
        return torch.from_numpy(bias).to(self._device)
