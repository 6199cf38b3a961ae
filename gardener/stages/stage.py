"""A stage: segments in, segments out. Runs on the worker thread, which owns all tensors.

What a stage does at either end is a part it holds, not a case it tests for: the first one embeds
tokens where others receive hidden states, the last one picks tokens where others hand them on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from gardener import messages
from gardener.errors import LocalError, RemoteError
from gardener.stages.architecture import Architecture
from gardener.stages.cache import KVCache
from gardener.stages.layers import Slice
from gardener.stages.llama import Block, Span, rms_norm, run_blocks
from gardener.stages.products import Linear
from gardener.stages.rotary import Rotary
from gardener.stages.slots import Mask, Placement, merge, within
from gardener.stages.tensors import DTYPES, dtype_of, pack, unpack_into

_STEP = 64
"""In 16 bits on the CPU, attention runs over slots in multiples of this: oneDNN compiles a kernel,
for a millisecond and for some 100 kB that it keeps, for every width it has not met before."""


@dataclass(frozen=True, eq=False)
class Job:
    """The rows of one segment to compute.

    request    whose cache they belong to
    placement  their slots, mask and positions
    tokens     [rows] token ids, at the first stage only
    hidden     [rows, width], at the other stages
    judged     indices of the rows whose picks are wanted; looked at by the last stage only
    taps       hidden states of all rows to give back; those of other stages are left to them
    cancelled  may be set by another thread when all rows of the job have died
    """

    request: int
    placement: Placement
    tokens: Sequence[int] = ()
    hidden: messages.Tensor | None = None
    judged: Sequence[int] = ()
    taps: Sequence[int] = ()
    cancelled: Event = field(default_factory=Event)

    @property
    def rows(self) -> int:
        return len(self.placement.slots)


@dataclass(frozen=True, eq=False)
class Result:
    """What comes of a job: hidden states [rows, width], or at the last stage the greedy pick after
    each judged row, in the order of `judged`. And a tensor [rows, width] for each tap here."""

    hidden: messages.Tensor | None = None
    picks: tuple[int, ...] = ()
    features: tuple[messages.Tensor, ...] = ()


class Intake(Protocol):
    """What a stage starts from."""

    nbytes: int

    def check(self, segment: messages.Segment) -> None:
        """Raise RemoteError for a segment that this stage cannot compute."""

    def __call__(self, jobs: Sequence[Job]) -> torch.Tensor:
        """The hidden states [rows, width] of all jobs, on the stage's device."""


class Outlet(Protocol):
    """What a stage ends with."""

    nbytes: int

    def __call__(self, hidden: torch.Tensor, jobs: Sequence[Job]) -> list[Result]:
        """One result per job from their hidden states [rows, width]."""


class Embed:
    """The first stage's intake. The table may stay in the checkpoint's own dtype, and there in the
    mapped file: a token reads one row of it."""

    def __init__(self, table: torch.Tensor, dtype: torch.dtype) -> None:
        self._table, self._dtype = table, dtype
        self.nbytes = table.nbytes

    def check(self, segment: messages.Segment) -> None:
        if segment.hidden is not None:
            raise RemoteError("the first stage got hidden states instead of tokens")
        if max(segment.tokens, default=0) >= len(self._table):
            raise RemoteError(
                f"token {max(segment.tokens)} is not in a vocabulary of {len(self._table)}"
            )

    def __call__(self, jobs: Sequence[Job]) -> torch.Tensor:
        tokens = torch.tensor([token for job in jobs for token in job.tokens])
        return F.embedding(tokens.to(self._table.device), self._table).to(self._dtype)


class Receive:
    """The intake of every other stage."""

    nbytes = 0

    def __init__(self, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self._width, self._dtype, self._device = width, dtype, device

    def check(self, segment: messages.Segment) -> None:
        if segment.hidden is None:
            if segment.ids:
                raise RemoteError("a stage that is not the first got tokens")
        elif segment.hidden.shape[1] != self._width:
            raise RemoteError(
                f"hidden states are {segment.hidden.shape[1]} wide, the model is {self._width}"
            )
        elif DTYPES[segment.hidden.dtype] != self._dtype:
            raise RemoteError(f"hidden states came as {segment.hidden.dtype}")

    def __call__(self, jobs: Sequence[Job]) -> torch.Tensor:
        rows = torch.empty(sum(job.rows for job in jobs), self._width, dtype=self._dtype)
        first = 0
        for job in jobs:
            if job.hidden is None:
                raise LocalError("a job without hidden states reached a stage that needs them")
            unpack_into(rows[first : first + job.rows], job.hidden)
            first += job.rows
        return rows.to(self._device)


class HandOn:
    """The outlet of every stage but the last."""

    nbytes = 0

    def __call__(self, hidden: torch.Tensor, jobs: Sequence[Job]) -> list[Result]:
        parts = torch.split(hidden.cpu(), [job.rows for job in jobs])
        return [Result(hidden=pack(part)) for part in parts]


class Head:
    """The last stage's outlet: final norm, logits of the judged rows, greedy picks. What comes out
    of the norm is the highest tap."""

    def __init__(self, norm: torch.Tensor, eps: float, head: Linear, layers: int) -> None:
        """`layers` of the whole model: the number by which its last hidden state is asked for."""
        self._norm, self._eps, self._head, self._tap = norm, eps, head, layers
        self.nbytes = norm.nbytes + head.nbytes

    @property
    def dtype(self) -> torch.dtype:
        return self._norm.dtype

    @property
    def device(self) -> torch.device:
        return self._norm.device

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final norm, [rows, width] to the same."""
        return rms_norm(hidden, self._norm, self._eps)

    def project(self, normed: torch.Tensor) -> torch.Tensor:
        """What comes out of the norm to logits [rows, vocabulary]."""
        return self._head(normed)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, width] to [rows, vocabulary]."""
        return self.project(self.normed(hidden))

    def __call__(self, hidden: torch.Tensor, jobs: Sequence[Job]) -> list[Result]:
        rows: list[int] = []  # that are needed: the judged ones, or all where they are tapped
        judged: list[int] = []  # where among these
        tapped: list[slice | None] = []  # by job
        first = 0
        for job in jobs:
            at = len(rows)
            if self._tap in job.taps:
                rows += range(first, first + job.rows)
                judged += [at + row for row in job.judged]
                tapped.append(slice(at, len(rows)))
            else:
                rows += [first + row for row in job.judged]
                judged += range(at, len(rows))
                tapped.append(None)
            first += job.rows
        if not rows:
            return [Result() for _ in jobs]
        normed = self.normed(hidden if len(rows) == len(hidden) else hidden[rows])
        picks = iter(self._picks(normed, judged))
        return [
            Result(
                picks=tuple(next(picks) for _ in job.judged),
                features=() if part is None else (pack(normed[part]),),
            )
            for job, part in zip(jobs, tapped, strict=True)
        ]

    def _picks(self, normed: torch.Tensor, judged: Sequence[int]) -> list[int]:
        if not judged:
            return []
        rows = normed if len(judged) == len(normed) else normed[judged]
        picks: list[int] = self.project(rows).argmax(-1).tolist()
        return picks


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
        return int(self.shape.config.max_position_embeddings)

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
