"""The live view of a holder. It runs on the event loop, a few times a second, and only reads.

The holder does not know that it is watched: between two frames it only adds to its trace.
"""

import re
import time
from collections.abc import Callable
from functools import lru_cache, partial

from tokenizers import Tokenizer

from gardener.cli.view.answer import Speed, Transcript, TreeChanges
from gardener.cli.view.holder_frame import draw
from gardener.cli.view.live import Live
from gardener.cli.view.moving import Pace, PaceMeter, moving
from gardener.cli.view.snapshot import HolderReader, Snapshot, WatchedRequest
from gardener.cli.view.status import AnswerFigures, HolderStatus, StageStatus
from gardener.cli.view.units import duration
from gardener.holder.detokenizer import token_text
from gardener.holder.holder import Holder
from gardener.protocol.cards import exactness
from gardener.protocol.messages import Card
from gardener.runtime.wording import bare_span

SLOW = 2.0
"""The least seconds without a verdict after which the state line says so."""


class _Answer:
    """What is remembered of one request from frame to frame."""

    def __init__(
        self, request: WatchedRequest, tokenizer: Tokenizer, decode: Callable[[int], str]
    ) -> None:
        self.number = request.number
        self.meter, self.speed = PaceMeter(), Speed()
        self.transcript = Transcript(tokenizer, request.prompt)
        self.changes = TreeChanges(decode)


class HolderWatch:
    """The live view of a holder; `live` is its screen."""

    def __init__(self, waiting: str, stages: int = 0) -> None:
        """Show that `waiting` goes on, until the ring stands.

        `stages` is the number of stages that are started here; 0 if they run elsewhere.
        """
        self.live = Live(self.status, draw)
        self._waiting = waiting
        self._began = time.monotonic()
        self._said = dict.fromkeys(range(1, stages + 1), "")
        self._reader: HolderReader | None = None
        self._answer: _Answer | None = None
        self._old_news = 0  # lines that were said before the ring stood

    def heard(self, line: str) -> None:
        """Take note of a line that a stage on this machine printed."""
        found = re.match(r"stage (\d+): (.*)", line)
        if found and int(found[1]) in self._said:
            self._said[int(found[1])] = found[2]

    def begin(self, holder: Holder, tokenizer: Tokenizer) -> None:
        """Watch a holder whose ring stands."""
        self._reader, self._tokenizer = HolderReader(holder), tokenizer
        self._old_news = self.live.stderr.count
        self._decode = lru_cache(4096)(partial(token_text, tokenizer))

    def status(self, now: float) -> HolderStatus:
        """How things are at `now`, in monotonic seconds."""
        said, since = self.live.stderr.last(60, self._old_news), now - self._began
        if self._reader is None:
            starting = (StageStatus(n, said=line or "starting") for n, line in self._said.items())
            return HolderStatus(self._waiting, elapsed=since, stages=tuple(starting), said=said)
        seen = self._reader.snapshot()
        if seen.request is None:
            stages = tuple(_stage(card) for card in seen.cards)
            return HolderStatus("the ring stands", elapsed=since, stages=stages, said=said)
        return self._answering(seen, seen.request, said, now)

    def _answering(
        self, seen: Snapshot, request: WatchedRequest, said: tuple[str, ...], now: float
    ) -> HolderStatus:
        if self._answer is None or self._answer.number != request.number:
            self._answer = _Answer(request, self._tokenizer, self._decode)
        answer = self._answer
        for record in request.news:
            for part in (answer.meter, answer.speed, answer.transcript, answer.changes):
                part.read(record)
        pace = answer.meter.pace(now)
        nodes, pruned = answer.changes.take(request)
        trouble, state = _state(seen.whole, request, pace, now)
        return HolderStatus(
            state=state,
            trouble=trouble,
            elapsed=now - (answer.speed.began or now),
            policy=request.policy,
            stages=tuple(_stage(card, number, pace) for number, card in enumerate(seen.cards)),
            segments=tuple(moving(request, pace, now)),
            round_trips=seen.round_trips,
            tree=nodes,
            pruned=pruned,
            text=answer.transcript.pieces(),
            exact=exactness(seen.cards).partition(":")[0],
            figures=AnswerFigures(
                request.counts,
                len(request.tree),
                answer.speed.lately(now),
                answer.speed.mean(now),
                answer.speed.bars(now),
                answer.speed.wait,
            ),
            said=said,
        )


def _state(whole: bool, request: WatchedRequest, pace: Pace, now: float) -> tuple[bool, str]:
    """Whether something is wrong, and what goes on."""
    if request.finished == "lost" or not whole:
        return True, "a stage is lost"
    if request.finished:
        return False, f"done ({request.finished})"
    oldest = request.flights[0] if request.flights else None
    if oldest is not None and now - oldest.left > max(SLOW, 5 * pace.flight):
        return True, f"no verdict on segment {oldest.seq} for {duration(now - oldest.left)}"
    return False, "answering" if request.counts.emitted else request.reading


def _stage(card: Card, number: int = 0, pace: Pace | None = None) -> StageStatus:
    layers = bare_span(card.first, card.end)
    if pace is None or number >= len(pace.compute):
        return StageStatus(card.stage, layers, card.name)
    times = pace.compute[number], pace.wait[number], pace.busy[number]
    return StageStatus(card.stage, layers, card.name, *times)
