"""Watches a holder: one status after another, from snapshots and from what its trace says.

The holder does not know that it is watched: between two statuses it only adds to its trace. Every
watcher remembers for itself, so there may be several.
"""

from collections.abc import Callable
from functools import lru_cache, partial

from tokenizers import Tokenizer

from gardener.holder.detokenizer import token_text
from gardener.holder.holder import Holder
from gardener.protocol.cards import exactness
from gardener.protocol.messages import Card
from gardener.runtime.wording import bare_span
from gardener.watch.answer import Speed, Transcript, TreeChanges
from gardener.watch.moving import Pace, PaceMeter, moving
from gardener.watch.snapshot import HolderReader, Snapshot, WatchedRequest
from gardener.watch.stages import StageMeter, StageTimes
from gardener.watch.status import (
    AnswerFigures,
    HolderStatus,
    KVMemory,
    MovingSegment,
    RequestLine,
    StageStatus,
)

SLOW = 2.0
"""The least seconds without a verdict after which the state line says so."""


class _Remembered:
    """What is remembered of one request from status to status."""

    def __init__(
        self, request: WatchedRequest, tokenizer: Tokenizer, decode: Callable[[int], str]
    ) -> None:
        self.meter, self.speed = PaceMeter(), Speed()
        self.transcript = Transcript(tokenizer, request.prompt)
        self.changes = TreeChanges(decode)

    def read(self, request: WatchedRequest) -> None:
        """Take note of what the trace says of it."""
        for record in request.news:
            for part in (self.meter, self.speed, self.transcript, self.changes):
                part.read(record)

    def line(self, request: WatchedRequest, now: float) -> RequestLine:
        """The request in one line."""
        counts = request.counts
        return RequestLine(
            request.number,
            "writing" if counts.emitted else "reading",
            request.policy,
            len(request.prompt),
            counts.emitted,
            self.speed.lately(now),
            self.speed.mean(now),
            now - (self.speed.began or now),
        )


class RingWatcher:
    """Takes the status of a holder whose ring stands, on its event loop."""

    def __init__(self, holder: Holder, tokenizer: Tokenizer) -> None:
        self._reader, self._tokenizer = HolderReader(holder), tokenizer
        self._requests: dict[int, _Remembered] = {}
        self._stages = StageMeter()
        self._decode = lru_cache(4096)(partial(token_text, tokenizer))

    def status(self, now: float) -> HolderStatus:
        """How things are at `now`, in seconds of `runtime.clock`."""
        seen = self._reader.snapshot()
        self._stages.read(seen.news)
        if not seen.requests:
            lost = _lost(seen)
            return HolderStatus(
                lost or "the ring stands",
                bool(lost),
                stages=self._cards(seen, now),
                round_trips=seen.round_trips,
                exact=exactness(seen.cards).partition(":")[0],
                memory=_memory(seen),
            )
        gone = self._requests.keys() - {each.number for each in seen.requests}
        for number in gone:
            del self._requests[number]
        for request in seen.requests:
            if request.number not in self._requests:
                made = _Remembered(request, self._tokenizer, self._decode)
                self._requests[request.number] = made
            self._requests[request.number].read(request)
        return self._answering(seen, now)

    def _answering(self, seen: Snapshot, now: float) -> HolderStatus:
        request, *others = seen.requests
        stages = self._cards(seen, now)
        large = self._requests[request.number]
        if request.finished and large.speed.last is not None:
            now = min(now, large.speed.last)  # the clock of an answer stops with it
        pace = large.meter.pace()
        nodes, pruned = large.changes.take(request)
        trouble, state = _state(seen, request, pace, now)
        waiting = (RequestLine(0, "waiting"),) * seen.waiting
        return HolderStatus(
            state=state,
            trouble=trouble,
            elapsed=now - (large.speed.began or now),
            request=request.number,
            running=seen.running,
            policy=request.policy,
            stages=stages,
            segments=tuple(each for one in seen.requests for each in self._moving(one, now)),
            flight=pace.flight,
            round_trips=seen.round_trips,
            tree=nodes,
            pruned=pruned,
            text=large.transcript.pieces(),
            exact=exactness(seen.cards).partition(":")[0],
            memory=_memory(seen),
            figures=AnswerFigures(
                request.counts,
                len(request.tree),
                large.speed.lately(now),
                large.speed.mean(now),
                large.speed.bars(now),
                large.speed.wait,
                1 / request.plain if request.plain > 0 else 0.0,
                request.depths,
                request.alone,
            ),
            others=(*(self._requests[each.number].line(each, now) for each in others), *waiting),
        )

    def _moving(self, request: WatchedRequest, now: float) -> list[MovingSegment]:
        return moving(request, self._requests[request.number].meter.pace(), now)

    def _cards(self, seen: Snapshot, now: float) -> tuple[StageStatus, ...]:
        """The stages, and how they fare with all that runs."""
        times = self._stages.times(now, works=seen.whole and seen.running > 0)
        return tuple(_stage(card, number, times) for number, card in enumerate(seen.cards))


_LOST = "a stage is lost"


def _lost(seen: Snapshot) -> str:
    """What the ring waits for, if it is broken."""
    return seen.condition or ("" if seen.whole else _LOST)


def _state(seen: Snapshot, request: WatchedRequest, pace: Pace, now: float) -> tuple[bool, str]:
    """Whether something is wrong, and what goes on."""
    if lost := _lost(seen):
        return True, lost
    if request.finished == "lost":
        return True, _LOST
    if request.finished:
        return False, f"done ({request.finished})"
    oldest = request.flights[0] if request.flights else None
    if oldest is not None and now - oldest.left > max(SLOW, 5 * pace.flight):
        return True, f"no verdict on segment {oldest.seq} for {now - oldest.left:.1f} s"
    return False, "answering" if request.counts.emitted else request.reading


def _memory(seen: Snapshot) -> KVMemory:
    return KVMemory(*seen.slots, slot=sum(card.kv_slot for card in seen.cards))


def _stage(card: Card, number: int, times: StageTimes) -> StageStatus:
    layers = bare_span(card.first, card.end)
    told: tuple[float | None, float | None, float] = (None, None, 0.0)
    if number < len(times.compute):
        told = times.compute[number], times.wait[number], times.busy[number]
    return StageStatus(
        card.stage,
        layers,
        card.name,
        *told,
        to_next=card.delay / 1e6 if card.delay else None,
        bandwidth=card.bandwidth,
    )
