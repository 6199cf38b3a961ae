"""From the holder and its trace to a picture. Runs on the loop, a few times a second, only reads.

The engine does not know that it is watched: between two pictures it only adds to its trace.
"""

import re
import time
from collections.abc import Callable
from functools import lru_cache
from itertools import dropwhile

from rich.console import RenderableType
from tokenizers import Tokenizer

from gardener.cli.view.flights import Flights, Pace
from gardener.cli.view.holder import Figures, HolderPicture, Lane, render
from gardener.cli.view.lines import duration
from gardener.cli.view.live import Live
from gardener.cli.view.progress import Growth, Speed, Transcript
from gardener.decoding.speculation import Speculation
from gardener.decoding.stage_times import StageTimes
from gardener.holder.holder import Holder
from gardener.net.link import Link
from gardener.protocol.messages import Card
from gardener.runtime.trace import Record
from gardener.runtime.wording import bare_span

SLOW = 2.0
"""Seconds that the oldest segment may be under way before the state line says so, at least."""


class _Request:
    """What is remembered of one request from picture to picture."""

    def __init__(
        self,
        decoding: Speculation,
        stage_times: StageTimes,
        tokenizer: Tokenizer,
        decode: Callable[[int], str],
    ):
        self.decoding, self.stage_times = decoding, stage_times
        self.flights = Flights()
        self.speed = Speed()
        self.transcript = Transcript(tokenizer)
        self.growth = Growth(decode)

    def read(self, record: Record) -> None:
        for reader in (self.flights, self.speed, self.transcript, self.growth):
            reader.read(record)


class HolderWatch:
    """The live view of a holder; `live` is the screen."""

    def __init__(self, waiting: str, stages: int = 0) -> None:
        """waiting: what is done until the ring stands. stages: of a ring of our own; else 0."""
        self.live = Live(self._look)
        self._waiting = waiting
        self._began = time.monotonic()
        self._said = dict.fromkeys(range(1, stages + 1), "")
        self._holder: Holder | None = None
        self._tokenizer: Tokenizer | None = None
        self._decode: Callable[[int], str] = str
        self._request: _Request | None = None
        self._seen: Record | None = None
        self._old_news = 0  # lines that were said before the ring stood

    def heard(self, line: str) -> None:
        """A stage of a ring of our own printed this."""
        found = re.match(r"stage (\d+): (.*)", line)
        if found and int(found[1]) in self._said:
            self._said[int(found[1])] = found[2]

    def begin(self, holder: Holder, tokenizer: Tokenizer) -> None:
        """The ring stands."""
        self._holder, self._tokenizer = holder, tokenizer
        self._old_news = self.live.stderr.count
        self._decode = lru_cache(4096)(
            lambda token: str(tokenizer.decode([token], skip_special_tokens=False))
        )

    def _look(self) -> Callable[[int, int], RenderableType]:
        picture = self.picture(time.monotonic())
        return lambda width, height: render(picture, width, height)

    def picture(self, now: float) -> HolderPicture:
        """How things are. `now`: monotonic seconds."""
        said = self.live.stderr.last(60, self._old_news)
        holder, request = self._holder, self._newest()
        if holder is None:
            lanes = [Lane(stage, said=line or "starting") for stage, line in self._said.items()]
            since = now - self._began
            return HolderPicture(self._waiting, elapsed=since, lanes=tuple(lanes), said=said)
        if request is None:
            lanes = [_lane(card) for card in holder.cards]
            since = now - self._began
            return HolderPicture("the ring stands", elapsed=since, lanes=tuple(lanes), said=said)
        return self._answering(holder, request, said, now)

    def _newest(self) -> _Request | None:
        """The request that runs, brought up to date."""
        if self._holder is None or self._tokenizer is None or self._holder.session is None:
            return None
        decoding, stage_times = self._holder.session.speculation, self._holder.session.stage_times
        records = self._holder.trace.after(self._seen)
        self._seen = records[-1] if records else self._seen
        if self._request is None or self._request.decoding is not decoding:
            self._request = _Request(decoding, stage_times, self._tokenizer, self._decode)
            # What comes before its first segment belongs to the request before.
            records = list(dropwhile(lambda record: record.request != decoding.request, records))
        for record in records:
            self._request.read(record)
        return self._request

    def _answering(
        self, holder: Holder, request: _Request, said: tuple[str, ...], now: float
    ) -> HolderPicture:
        decoding, flights = request.decoding, request.flights
        pace = flights.pace(request.stage_times, now)
        segments = flights.segments(decoding, pace, len(holder.cards), now)
        flying = {node for sent in flights.flying.values() for node in sent.ids}
        twigs, pruned = request.growth.take(decoding.tree, decoding.view().sent, flying)
        trouble, state = _state(holder, request, pace, now)
        return HolderPicture(
            state=state,
            trouble=trouble,
            elapsed=now - (request.speed.began or now),
            policy=decoding.policy.name,
            lanes=tuple(_lane(card, number, pace) for number, card in enumerate(holder.cards)),
            segments=tuple(segments),
            round_trips=(_round_trip(holder.ring.downstream), _round_trip(holder.ring.upstream)),
            twigs=twigs,
            pruned=pruned,
            text=request.transcript.pieces(),
            figures=_figures(request, now),
            said=said,
        )


def _state(holder: Holder, request: _Request, pace: Pace, now: float) -> tuple[bool, str]:
    """Whether something is wrong, and what goes on."""
    decoding, ring = request.decoding, holder.ring
    if decoding.finished == "lost" or ring.upstream is None or ring.downstream is None:
        return True, "a stage is lost"
    if decoding.finished:
        return False, f"done ({decoding.finished})"
    oldest = request.flights.oldest(now)
    if oldest is not None and oldest[1] > max(SLOW, 5 * pace.flight):
        return True, f"no verdict on segment {oldest[0]} for {duration(oldest[1])}"
    if not decoding.counts.emitted:
        return False, reading(decoding)
    return False, "answering"


def reading(decoding: Speculation) -> str:
    """How far the prompt is."""
    return f"reading the prompt, {decoding.read} of {len(decoding.prompt)} tokens"


def _figures(request: _Request, now: float) -> Figures:
    decoding, speed = request.decoding, request.speed
    counts, nodes = decoding.counts, len(decoding.tree)
    return Figures(
        tokens=counts.emitted,
        rate=speed.lately(now),
        mean=speed.mean(now),
        rates=speed.curve(now),
        per_segment=counts.emitted / counts.segments if counts.segments else 0.0,
        first_token=speed.wait,
        accepted=counts.accepted,
        missed=counts.missed,
        rows=counts.rows,
        wasted=counts.wasted,
        nodes=nodes,
        grown=counts.drafted,
        # What was drafted and neither came true nor still stands.
        pruned=max(counts.drafted - counts.accepted - (nodes - 1), 0),
    )


def _lane(card: Card, number: int = 0, pace: Pace | None = None) -> Lane:
    layers = bare_span(card.first, card.end)
    if pace is None or number >= len(pace.compute):
        return Lane(card.stage, layers, card.name)
    busy = pace.busy[number]
    return Lane(card.stage, layers, card.name, pace.compute[number], pace.wait[number], busy)


def _round_trip(link: Link | None) -> float | None:
    return None if link is None else link.round_trip
