"""The way of a segment through a stage: receive, queue, batch, compute, hand on.

The scheduler is plain bookkeeping on the event loop. Finished arrays go to the worker thread, first
in, first out. So an `Advance` takes effect at once, also on segments that wait or are being
computed, and no lock is needed: a slot that is freed while an older pass still writes to it is only
reused by a younger one.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from gardener.errors import RemoteError, StageFailed
from gardener.model.placement import Ints
from gardener.protocol.messages import Advance, Open, Segment, Verdict
from gardener.runtime import clock
from gardener.runtime.trace import Trace
from gardener.runtime.worker import AnyWorker
from gardener.stages.batch import Batch, BatchEntry
from gardener.stages.batching import SEPARATE, BatchingPolicy
from gardener.stages.computes import Computes, Opened
from gardener.stages.forward import ComputedSegment
from gardener.stages.queue import SegmentQueue, WaitingSegment
from gardener.stages.request import Request
from gardener.stages.room import BOUNDLESS, Room
from gardener.stages.totals import Totals

MOST_ERRANDS = 1024
"""Most openings and closings that may wait for the worker."""

MOST_UNCLOSED = 2**16
"""Most requests that are not closed: of those that were refused or given up, only the number is
known, so that what still comes of them is ignored."""

LESS = (
    "it has no memory left: fewer requests at a time (--max-requests) or a shorter --context help"
)
"""What to do about a stage that runs out of memory."""

_NO_MEMORY = re.compile(r"(?i)out ?of ?memory|not enough memory|can't allocate memory")
"""How torch says so, on one device or another."""


class Refused(StageFailed):
    """A request could not be opened."""


def in_words(error: BaseException) -> str:
    """Why something failed: as `StageFailed` says it, or with the kind of the error."""
    if isinstance(error, StageFailed):
        return str(error)
    said = f"{type(error).__name__}: {error}"
    lacks_memory = isinstance(error, MemoryError) or _NO_MEMORY.search(said)
    return f"{said.partition(chr(10))[0]} ({LESS})" if lacks_memory else said


class Scheduler:
    """The segments and requests of one stage.

    out: sends a finished segment or verdict on. drained: None while `out` may be called, or else
    something to wait for until it may again.
    failed: this segment of a request, which has been given up, could not be computed; or with
    `Refused`, the request could not be opened.
    room: how much requests may take.
    """

    def __init__(
        self,
        stage: Computes,
        worker: AnyWorker,
        trace: Trace,
        out: Callable[[Segment | Verdict], None],
        drained: Callable[[], Awaitable[None] | None],
        failed: Callable[[int, int, BaseException], None],
        batching: BatchingPolicy = SEPARATE,
        room: Room = BOUNDLESS,
    ) -> None:
        self._stage = stage
        self._opened = Opened(stage)  # which the worker thread has for itself
        self._worker = worker
        self._trace = trace
        self._out = out
        self._drained = drained
        self._failed = failed
        self._batching = batching
        self._room = room
        self._requests: dict[int, Request] = {}  # by number, from their Open until their Close
        self._queue = SegmentQueue()
        self._batch = Batch()  # what is computed now
        self._busy = False
        self._followed = False  # a segment is about to come that belongs to the one before
        self._pause: asyncio.Future[None] | None = None
        self.totals = Totals()
        self.latest = (0, -1)  # request and sequence number of the newest segment that came

    @property
    def requests(self) -> tuple[int, ...]:
        """The requests that are open and were not given up."""
        return tuple(number for number, request in self._requests.items() if request.is_live)

    @property
    def kept(self) -> tuple[int, ...]:
        """The requests that have ended, and with whose rows others may begin."""
        return tuple(number for number, request in self._requests.items() if request.is_kept)

    @property
    def unclosed(self) -> tuple[int, ...]:
        """All of which something is known: those that were refused or given up among them."""
        return tuple(self._requests)

    @property
    def slots(self) -> int:
        """Slots that are set aside for all requests, running and kept."""
        return sum(request.slots for request in self._requests.values())

    @property
    def waiting(self) -> int:
        """Segments that came and have not left."""
        return len(self._queue) + len(self._batch.entries)

    @property
    def computing(self) -> Batch | None:
        """What the worker computes now."""
        return self._batch if self._busy and self._batch.entries else None

    # --- requests ----------------------------------------------------------------------------

    def open(self, message: Open) -> None:
        """A request begins, or fails at once if there is no room for it, if it begins with what is
        not here, or if it cannot be computed. Raises RemoteError for one that makes no sense."""
        self._check_open(message)
        request = Request(message)
        try:
            self._check_room(message)
            self._stage.check_open(message)
            shared = self._shared(request, message)
        except StageFailed as refusal:
            request.end()
            self._requests[message.request] = request
            self._failed(request.number, 0, Refused(in_words(refusal)))
            return
        self._requests[message.request] = request
        opening = partial(self._opened.open, message, shared)
        self._worker.call(partial(self._begun, request), opening)

    def _check_open(self, message: Open) -> None:
        if message.request in self._requests:
            raise RemoteError(f"request {message.request} was opened twice")
        if len(self._requests) >= MOST_UNCLOSED:
            raise RemoteError(f"more than {MOST_UNCLOSED} requests were opened and not closed")
        if message.prompt >= message.context:
            raise RemoteError(
                f"request {message.request} asks for a context of {message.context} with a prompt "
                f"of {message.prompt}"
            )
        layers = self._stage.slice.layers
        if max(message.taps, default=0) > layers:
            raise RemoteError(f"tap {message.taps[-1]} of a model with {layers} layers")

    def _check_room(self, message: Open) -> None:
        """Raise StageFailed if there is no room for this request."""
        self._room.check(message, self.slots, len(self.requests), len(self.kept))
        if self._worker.waiting >= MOST_ERRANDS:
            raise StageFailed("requests are opened faster than this stage can open them")

    def _shared(self, request: Request, message: Open) -> Ints | None:
        """Where the rows of its prefix, if it has one, stand in another request. Raises StageFailed
        if they are not here."""
        if message.prefix is None:
            return None
        number, count = message.prefix
        source = self._requests.get(number)
        here = 0 if source is None else source.certain
        if source is None or here < count:
            raise StageFailed(
                f"the request begins with {count} tokens of request {number}, and {here} are here"
            )
        return request.begin_with(source, count)

    def _begun(self, request: Request, _: None, error: BaseException | None, __: float) -> None:
        """The worker has opened the request, or could not."""
        if error is not None:
            self._fail(request, 0, Refused(in_words(error)))

    def advance(self, message: Advance) -> None:
        request = self._find(message.request, "an Advance for")
        if request.is_live:
            request.advance(message)
            self._batch.cancel_dead()

    def close(self, number: int, keep: bool = False) -> None:
        """The request ends. All of it is forgotten, or all but its certain rows if they are to be
        kept; nothing of one that was given up can be. Idempotent."""
        request = self._requests.get(number)
        if request is None or (keep and request.is_kept):
            return
        if keep and request.is_live:
            slots = request.keep()
            self._drop_ended()
            self._worker.submit(self._opened.keep, number, slots)
        else:
            del self._requests[number]
            self._end(request)

    def clear(self) -> list[int]:
        """Forget all requests, since whoever opened them is gone. Returns their numbers."""
        numbers = list(self._requests)
        self._followed = False
        for number in numbers:
            self.close(number)
        return numbers

    def give_up(self, number: int) -> None:
        """Free what the request holds, running or kept; what still comes of it until it is closed
        is ignored."""
        request = self._requests.get(number)
        if request is not None:
            self._end(request)

    def gave_up(self, number: int) -> bool:
        """Whether the request was given up, and is not yet closed from upstream."""
        request = self._requests.get(number)
        return request is not None and not request.is_live

    def _find(self, number: int, what: str) -> Request:
        request = self._requests.get(number)
        if request is None:
            raise RemoteError(f"{what} request {number}, which is not open")
        return request

    def _end(self, request: Request) -> None:
        if request.is_live or request.is_kept:
            request.end()
            self._drop_ended()
            self._worker.submit(self._opened.close, request.number)

    def _drop_ended(self) -> None:
        """Let go of what waits or is computed for requests that have ended."""
        self._queue.drop_ended()
        self._batch.cancel_dead()

    def _fail(self, request: Request, seq: int, error: BaseException) -> None:
        if request.is_live:
            self._end(request)
            self._failed(request.number, seq, error)

    # --- receive and queue -------------------------------------------------------------------

    def receive(self, segment: Segment) -> None:
        """Check a segment, and compute it in its turn. Raises RemoteError for one that must not
        come."""
        request = self._find(segment.request, "a segment of")
        if request.is_live:
            try:
                self._take_in(request, segment)
            except StageFailed as error:
                self._fail(request, segment.seq, error)
        self._followed = segment.more  # even if it does not count: the one before it may wait
        self._compute()

    def _take_in(self, request: Request, segment: Segment) -> None:
        self._stage.check(segment)
        request.check_features(segment, self._stage.slice.first)
        self.latest = (segment.request, segment.seq)
        self._queue.check_room(request)
        self._trace.add("queued", segment.request, segment.seq, len(segment.ids))
        self._queue.append(WaitingSegment(request, segment, clock.now()))

    # --- batch -------------------------------------------------------------------------------

    def _next_batch(self) -> Batch:
        """The waiting segments that go into one forward pass, without the rows that died."""
        entries: list[BatchEntry] = []
        now = clock.now()
        while self._queue:
            waiting = self._queue.pop()
            request, segment = waiting.request, waiting.segment
            try:
                segment = self._without_dead_rows(request, segment)
                if not self._joins(request, segment, entries):
                    self._queue.put_back(waiting)
                    break
                placed = request.place(segment) if segment.ids else None
            except Exception as error:  # RemoteError: rows that do not fit together, or do not fit
                self._fail(request, segment.seq, error)
                continue
            entries.append(BatchEntry(request, segment, now - waiting.since, placed))
        return Batch(tuple(entry for entry in entries if entry.request.is_live), now)

    def _joins(self, request: Request, segment: Segment, entries: Sequence[BatchEntry]) -> bool:
        """Whether the segment goes into one pass with these."""
        own = sum(entry.request is request and entry.rows > 0 for entry in entries)
        rows = sum(entry.rows for entry in entries)
        return self._batching.joins(own, rows, len(segment.ids))

    def _without_dead_rows(self, request: Request, segment: Segment) -> Segment:
        kept = request.arriving(segment)
        dead = len(segment.ids) - len(kept.ids)
        if dead:
            self._trace.add("dropped", segment.request, segment.seq, dead)
            self.totals.dropped += dead
        return kept

    # --- compute -----------------------------------------------------------------------------

    def _compute(self) -> None:
        """Compute what waits, unless something is computed already, or the rest of what belongs to
        it is about to come.

        No task and no event stand between a segment and its forward pass, or between that and the
        answer: each would cost a turn of the loop on the way of every token.
        """
        while self._queue and not self._busy and not self._followed:
            self._batch = self._next_batch()
            placed = self._batch.placed
            if placed:
                self._busy = True
                self._worker.call(self._computed, partial(self._opened.run, placed))
            else:
                self._hand_on(None, 0.0)

    def _computed(
        self,
        computed: Sequence[ComputedSegment] | None,
        error: BaseException | None,
        seconds: float,
    ) -> None:
        """The worker is done with the batch."""
        batch = self._batch
        try:
            if error is not None:
                raise error
            first = batch.entries[0].segment
            self._trace.add("computed", first.request, first.seq, batch.rows, seconds)
            self.totals.computed(batch.rows, seconds)
            self._hand_on(computed, seconds)
        except Exception as problem:  # whatever it is: the next segment must find a free scheduler
            self._batch = Batch()
            for entry in batch.entries:
                self._fail(entry.request, entry.segment.seq, problem)
        slow = self._drained()
        if slow is None:
            self._go_on()
        else:
            self._pause = asyncio.ensure_future(slow)
            self._pause.add_done_callback(lambda _: self._go_on())

    def _go_on(self) -> None:
        self._busy = False
        self._compute()

    # --- hand on -----------------------------------------------------------------------------

    def _hand_on(self, computed: Sequence[ComputedSegment] | None, seconds: float) -> None:
        """Send the batch on, in the order in which it came, as one that belongs together. What goes
        wrong with a segment ends its request alone."""
        batch, self._batch = self._batch, Batch()
        is_last = self._stage.slice.is_last
        answers: list[tuple[BatchEntry, Segment | Verdict]] = []
        for entry, result, timing in batch.results(computed, seconds):
            try:
                answers.append((entry, entry.answer(result, timing, is_last)))
            except Exception as error:
                self._fail(entry.request, entry.segment.seq, error)
        answers = [(entry, answer) for entry, answer in answers if entry.request.is_live]
        for at, (entry, answer) in enumerate(answers, 1):
            self._send(entry, answer, at > 1, at < len(answers))

    def _send(
        self, entry: BatchEntry, answer: Segment | Verdict, follows: bool, more: bool
    ) -> None:
        """Send an answer on. `follows`: it is not the first of its batch. `more`: nor the last."""
        try:
            self._out(_marked(answer, more))
        except Exception as error:
            self._fail(entry.request, entry.segment.seq, error)
            if follows and not more:  # or else they would wait for it who have those before it
                empty = entry.answer(None, answer.times[-1], self._stage.slice.is_last)
                self._out(_marked(empty, more))


def _marked(answer: Segment | Verdict, more: bool) -> Segment | Verdict:
    """The answer with word of whether another one follows at once."""
    return answer if answer.more == more else msgspec.structs.replace(answer, more=more)
