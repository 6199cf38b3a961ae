"""Segments wait at a stage, are computed together, and leave in the order they came.

The scheduler keeps what a stage knows of each request: which rows it holds and which still live. It
is plain bookkeeping on the event loop; finished arrays go to the worker thread, first in, first
out. So an `Advance` takes effect at once, also on segments that wait or are being computed, and no
lock is needed: a slot freed while an older job still writes to it is only reused by a younger one.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec

from gardener.errors import RemoteError
from gardener.model.checkpoint.slices import Slice
from gardener.model.kv_slots import SlotTable
from gardener.protocol.messages import Advance, Open, Segment, Timing, Verdict, microseconds
from gardener.runtime import clock
from gardener.runtime.trace import Trace
from gardener.runtime.worker import AnyWorker
from gardener.stages.jobs import Job, Result
from gardener.stages.merging import APART, Merging
from gardener.stages.segments import keep_rows, tensor_bytes, verdict_of

BATCH_ROWS = 512
"""Segments that wait are computed together up to this many rows."""

QUEUE = 256
"""More segments than this at one stage: the holder does not keep to its window."""

QUEUE_BYTES = 2**30
"""And this many bytes of hidden states in them."""

REQUESTS = 64
"""Most requests open at one stage."""

ERRANDS = 1024
"""Most openings and closings that may wait for the worker."""


@dataclass(slots=True)
class _Waiting:
    segment: Segment
    since: float


@dataclass(slots=True)
class _Entry:
    """A segment in the batch. `job` is None where no row of it lives."""

    segment: Segment
    wait: float
    job: Job | None


class Computes(Protocol):
    """What a scheduler asks of a stage; see `stages.stage.Stage`."""

    slice: Slice

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""

    def open(self, request: int) -> None: ...

    def close(self, request: int) -> None: ...

    def check(self, segment: Segment) -> None: ...

    def run(self, jobs: Sequence[Job]) -> list[Result] | None: ...


class Scheduler:
    """What one stage has on its table.

    out: sends a finished segment or verdict on. drained: None while `out` may be called, or else
    something to wait for until it may again.
    failed: this segment of a request, which has been given up, could not be computed.
    """

    def __init__(
        self,
        stage: Computes,
        worker: AnyWorker,
        trace: Trace,
        out: Callable[[Segment | Verdict], None],
        drained: Callable[[], Awaitable[None] | None],
        failed: Callable[[int, int, BaseException], None],
        merging: Merging = APART,
    ) -> None:
        self._stage = stage
        self._worker = worker
        self._trace = trace
        self._out = out
        self._drained = drained
        self._failed = failed
        self._merging = merging
        self._last = stage.slice.is_last
        self._first, self._layers = stage.slice.first, stage.slice.layers
        self._context = stage.context
        self._tables: dict[int, SlotTable] = {}
        self._prompts: dict[int, int] = {}
        self._taps: dict[int, tuple[int, ...]] = {}
        self._given_up: set[int] = set()  # not yet closed from upstream: more may come, for nothing
        self._queue: deque[_Waiting] = deque()
        self._batch: list[_Entry] = []  # what is computed now
        self._busy = False
        self._pause: asyncio.Future[None] | None = None
        self.latest = (0, -1)  # request and sequence number of the newest segment that came

    @property
    def requests(self) -> tuple[int, ...]:
        """The requests that are open."""
        return tuple(self._tables)

    @property
    def waiting(self) -> int:
        """Segments that came and have not left."""
        return len(self._queue) + len(self._batch)

    def open(self, message: Open) -> None:
        if message.request in self._tables or message.request in self._given_up:
            raise RemoteError(f"request {message.request} was opened twice")
        if len(self._tables) + len(self._given_up) >= REQUESTS or self._worker.waiting >= ERRANDS:
            raise RemoteError(f"more than {REQUESTS} requests are opened at one stage")
        if message.prompt >= message.context or message.context > self._context:
            raise RemoteError(
                f"request {message.request} asks for a context of {message.context} with a prompt "
                f"of {message.prompt}; this model has a context of {self._context}"
            )
        if max(message.taps, default=0) > self._layers:
            raise RemoteError(f"tap {message.taps[-1]} of a model with {self._layers} layers")
        self._tables[message.request] = SlotTable(message.prompt, message.context)
        self._prompts[message.request] = message.prompt
        self._taps[message.request] = message.taps
        self._worker.call(
            partial(self._opened, message.request), partial(self._stage.open, message.request)
        )

    def _opened(self, request: int, _: None, error: BaseException | None, __: float) -> None:
        if error is not None:
            self._fail(request, 0, error)

    def close(self, request: int) -> None:
        """Forget the request. Idempotent."""
        self._given_up.discard(request)
        self._free(request)

    def clear(self) -> list[int]:
        """Forget all requests, for who opened them is gone; returns them."""
        requests = [*self.requests, *self._given_up]
        for request in requests:
            self.close(request)
        return requests

    def give_up(self, request: int) -> None:
        """Free what the request holds; what still comes of it until it is closed is ignored."""
        if request in self._tables:
            self._given_up.add(request)
            self._free(request)

    def gave_up(self, request: int) -> bool:
        return request in self._given_up

    def _free(self, request: int) -> None:
        if self._tables.pop(request, None) is None:
            return
        del self._prompts[request], self._taps[request]
        self._queue = deque(w for w in self._queue if w.segment.request != request)
        self._cancel()
        self._worker.submit(self._stage.close, request)

    def _fail(self, request: int, seq: int, error: BaseException) -> None:
        if request in self._tables:
            self.give_up(request)
            self._failed(request, seq, error)

    def advance(self, message: Advance) -> None:
        if self.gave_up(message.request):
            return
        table = self._tables.get(message.request)
        if table is None:
            raise RemoteError(f"an Advance for request {message.request}, which is not open")
        table.advance(message.settled, message.root)
        self._cancel()

    def submit(self, segment: Segment) -> None:
        if self.gave_up(segment.request):
            return
        if segment.request not in self._tables:
            raise RemoteError(f"a segment of request {segment.request}, which is not open")
        held = sum(tensor_bytes(w.segment) for w in self._queue)
        if len(self._queue) >= QUEUE or held >= QUEUE_BYTES:
            raise RemoteError(f"{len(self._queue)} segments of {held} bytes wait: that is too much")
        self._stage.check(segment)
        self._check_features(segment)
        self.latest = (segment.request, segment.seq)
        self._trace.add("queued", segment.request, segment.seq, len(segment.ids))
        self._queue.append(_Waiting(segment, clock.now()))
        self._begin()

    def _check_features(self, segment: Segment) -> None:
        """Every stage before this one must have added its taps, and no other."""
        taps = self._taps[segment.request] if segment.ids else ()
        due = sum(tap < self._first for tap in taps)
        if len(segment.features) != due:
            raise RemoteError(
                f"segment {segment.seq} brings {len(segment.features)} features, due are {due}"
            )

    def _begin(self) -> None:
        """Compute what waits, unless something is computed already.

        No task and no event stand between a segment and its forward pass, or between that and the
        answer: each would cost a turn of the loop on the way of every token.
        """
        while self._queue and not self._busy:
            self._batch = self._gather()
            jobs = [entry.job for entry in self._batch if entry.job is not None]
            if jobs:
                self._busy = True
                self._worker.call(self._computed, partial(self._stage.run, jobs))
            else:
                self._deliver([])

    def _computed(
        self, results: Sequence[Result] | None, error: BaseException | None, seconds: float
    ) -> None:
        """The worker is done with the batch."""
        try:
            if error is not None:
                raise error
            rows = sum(entry.job.rows for entry in self._batch if entry.job is not None)
            first = self._batch[0].segment
            self._trace.add("computed", first.request, first.seq, rows, seconds)
            # A pass that was stopped half-way tells nobody what its rows take.
            self._deliver(results or [], seconds, 0 if results is None else rows)
        except Exception as problem:  # whatever it is: the next segment must find a free scheduler
            for entry in self._batch:
                self._fail(entry.segment.request, entry.segment.seq, problem)
            self._batch = []
        slow = self._drained()
        if slow is None:
            self._go_on()
        else:
            self._pause = asyncio.ensure_future(slow)
            self._pause.add_done_callback(lambda _: self._go_on())

    def _go_on(self) -> None:
        self._busy = False
        self._begin()

    def _deliver(self, results: Sequence[Result], seconds: float = 0.0, rows: int = 0) -> None:
        """Send the batch on, in the order in which it came. The pass took so long for its rows."""
        answers = iter(results)
        for entry in self._batch:
            # Without a job no row lived; without results none lived to the end of the pass.
            result = next(answers, None) if entry.job is not None else None
            if entry.segment.request in self._tables:
                timing = Timing(microseconds(entry.wait), 0)
                if entry.job is not None:
                    timing = Timing(microseconds(entry.wait), microseconds(seconds), rows)
                self._out(self._answer(entry, result, timing))
        self._batch = []

    # --- one batch ---------------------------------------------------------------------------

    def _gather(self) -> list[_Entry]:
        """What waits now, as far as it goes into one forward pass, without the rows that died."""
        entries: list[_Entry] = []
        shares: dict[int, list[int]] = {}  # by request: the rows of its segments
        now = clock.now()
        while self._queue:
            waiting = self._queue.popleft()
            segment = waiting.segment
            try:
                segment = self._alive(segment)
                if not self._joins(segment, shares):
                    self._queue.appendleft(waiting)
                    break
                job = self._job(segment) if segment.ids else None
            except Exception as error:  # RemoteError: rows that do not fit together, or do not fit
                self._fail(segment.request, segment.seq, error)
                continue
            if job is not None:
                shares.setdefault(segment.request, []).append(job.rows)
            entries.append(_Entry(segment, now - waiting.since, job))
        return [entry for entry in entries if entry.segment.request in self._tables]

    def _joins(self, segment: Segment, shares: dict[int, list[int]]) -> bool:
        """Whether a segment goes into the pass that so far has these segments."""
        rows, more = sum(map(sum, shares.values())), len(segment.ids)
        if not rows or not more:
            return True
        if rows + more > BATCH_ROWS:
            return False
        own = shares.get(segment.request)
        return own is None or self._merging.pays(len(own), rows, more)

    def _alive(self, segment: Segment) -> Segment:
        table = self._tables[segment.request]
        alive = table.alive(segment.ids, segment.parents)
        if len(alive) == len(segment.ids):
            return segment
        dead = len(segment.ids) - len(alive)
        self._trace.add("dropped", segment.request, segment.seq, dead)
        return keep_rows(segment, alive)

    def _job(self, segment: Segment) -> Job:
        table = self._tables[segment.request]
        root = self._prompts[segment.request] - 1  # rows before the first root are not judged
        return Job(
            request=segment.request,
            placement=table.place(segment.ids, segment.parents, segment.positions),
            tokens=segment.tokens,
            hidden=segment.hidden,
            judged=[i for i, node in enumerate(segment.ids) if node >= root],
            taps=self._taps[segment.request],
        )

    def _cancel(self) -> None:
        """Tell the worker about jobs of which no row lives any more."""
        for entry in self._batch:
            if entry.job is not None and not self._living(entry.segment):
                entry.job.cancelled.set()

    def _living(self, segment: Segment) -> list[int]:
        """Indices of the rows that live now; none if the request is closed."""
        table = self._tables.get(segment.request)
        if table is None:
            return []
        return [row for row, lives in enumerate(table.living(segment.ids)) if lives]

    def _answer(self, entry: _Entry, result: Result | None, timing: Timing) -> Segment | Verdict:
        segment = entry.segment
        times = (*segment.times, timing)
        if result is None:
            empty = keep_rows(segment, [])
            if self._last:
                return Verdict(segment.request, segment.seq, (), (), times)
            return msgspec.structs.replace(empty, times=times)
        # Rows that were computed may be dead by now: nobody after this stage need see them.
        living = self._living(segment)
        features = (*segment.features, *result.features)
        if result.hidden is not None:
            moved = msgspec.structs.replace(
                segment, tokens=(), hidden=result.hidden, times=times, features=features
            )
            return keep_rows(moved, living)
        assert entry.job is not None
        return verdict_of(segment, entry.job.judged, result.picks, living, times, features)
