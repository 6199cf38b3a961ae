"""What is read from a holder to be shown. No other file of this room looks into one."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from gardener.decoding.flights import Flight
from gardener.decoding.limits import Counts
from gardener.decoding.payoffs import plain_seconds
from gardener.decoding.speculation import Speculation
from gardener.decoding.tree import Tree
from gardener.holder.holder import Holder
from gardener.holder.session import Session
from gardener.net.link import Link
from gardener.protocol.messages import Card
from gardener.runtime.trace import Record
from gardener.watch.sharing import Sharing


@dataclass(frozen=True, slots=True)
class WatchedRequest:
    """One request as it stands. The tree is the live one, to be read before anything goes on.

    `number` counts the requests of the holder from 1. `news` is what the trace says of it since the
    last snapshot. `plain`: seconds that a token should take without guesses. `depths`, `alone`: see
    `AnswerFigures`.
    """

    number: int
    policy: str
    finished: str | None
    reading: str
    counts: Counts
    tree: Tree
    sent: Collection[int]
    flights: tuple[Flight, ...]
    news: tuple[Record, ...] = ()
    prompt: Sequence[int] = ()
    plain: float = 0.0
    depths: tuple[tuple[int, int], ...] = ()
    alone: bool = True


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A ring and its requests as they stand: those that run, the oldest first, or the one that was
    shown last; how many run, and how many wait for their turn; slots that are used, and that there
    are; what a ring that broke waits for; what the trace says of all requests since the last
    snapshot."""

    cards: tuple[Card, ...]
    whole: bool
    round_trips: tuple[float | None, float | None]
    requests: tuple[WatchedRequest, ...]
    running: int
    waiting: int
    slots: tuple[int, int | None]
    condition: str = ""
    news: tuple[Record, ...] = ()


class HolderReader:
    """Takes snapshots of a holder, on its event loop."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._seen: Record | None = None
        self._oldest: Session | None = None  # in the last snapshot
        self._sharing = Sharing()

    def snapshot(self) -> Snapshot:
        """The ring and its requests."""
        down, up = self._holder.ring.downstream, self._holder.ring.upstream
        admission = self._holder.admission
        running = tuple(admission.running.values())
        if not running:  # what ended last stays in sight
            running = tuple(each for each in (self._oldest or self._holder.session,) if each)
        self._oldest = next(iter(running), None)
        news = self._news()
        self._sharing.read(news, [each.request for each in running if not each.finish_reason])
        self._sharing.keep([each.request for each in running])
        own: dict[int, list[Record]] = {}
        for each in news:
            own.setdefault(each.request, []).append(each)
        return Snapshot(
            cards=self._holder.cards,
            whole=down is not None and up is not None,
            round_trips=(_round_trip(down), _round_trip(up)),
            requests=tuple(self._request(each, own) for each in running),
            running=len(admission.running),
            waiting=sum(each not in running for each in admission.waiting),
            condition=self._holder.condition,
            slots=(admission.prefixes.used, admission.prefixes.room),
            news=tuple(news),
        )

    def _news(self) -> list[Record]:
        """What was added to the trace since this was asked last."""
        records = self._holder.trace.after(self._seen)
        self._seen = records[-1] if records else self._seen
        return records

    def _request(self, session: Session, news: Mapping[int, Sequence[Record]]) -> WatchedRequest:
        speculation = session.speculation
        return WatchedRequest(
            number=session.number,
            policy=speculation.policy.name,
            finished=speculation.finished,
            reading=reading(speculation),
            counts=replace(speculation.counts),
            tree=speculation.tree,
            sent=speculation.view().sent,
            flights=tuple(speculation.flights),
            news=tuple(one for each in session.lives.requests for one in news.get(each, ())),
            prompt=session.prompt,
            plain=plain_seconds(1, speculation.moment.costs),
            depths=speculation.depths.pairs(),
            alone=self._sharing.alone(speculation.request),
        )


def _round_trip(link: Link | None) -> float | None:
    return None if link is None else link.round_trip


def reading(speculation: Speculation) -> str:
    """A line that says how much of the prompt has been read."""
    return f"reading the prompt, {speculation.prompt_read} of {len(speculation.prompt)} tokens"
