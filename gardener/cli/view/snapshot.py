"""What the view reads from a holder. No other file of the view looks into one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from gardener.decoding.flights import Flight
from gardener.decoding.limits import Counts
from gardener.decoding.speculation import Speculation
from gardener.decoding.tree import Tree
from gardener.holder.holder import Holder
from gardener.net.link import Link
from gardener.protocol.messages import Card
from gardener.runtime.trace import Record


@dataclass(frozen=True, slots=True)
class WatchedRequest:
    """One request as it stands. The tree is the live one, to be read before anything goes on.

    `news` is what the trace says of it since the last snapshot.
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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A ring and its newest request as they stand."""

    cards: tuple[Card, ...]
    whole: bool
    round_trips: tuple[float | None, float | None]
    request: WatchedRequest | None


class HolderReader:
    """Takes snapshots of a holder, on its event loop."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._seen: Record | None = None

    def snapshot(self) -> Snapshot:
        """The ring and its newest request."""
        down, up = self._holder.ring.downstream, self._holder.ring.upstream
        session = self._holder.session
        return Snapshot(
            cards=self._holder.cards,
            whole=down is not None and up is not None,
            round_trips=(_round_trip(down), _round_trip(up)),
            request=None if session is None else self._request(session.speculation),
        )

    def _request(self, speculation: Speculation) -> WatchedRequest:
        records = self._holder.trace.after(self._seen)
        self._seen = records[-1] if records else self._seen
        return WatchedRequest(
            number=speculation.request,
            policy=speculation.policy.name,
            finished=speculation.finished,
            reading=reading(speculation),
            counts=replace(speculation.counts),
            tree=speculation.tree,
            sent=speculation.view().sent,
            flights=tuple(speculation.flights),
            news=tuple(each for each in records if each.request == speculation.request),
            prompt=speculation.prompt,
        )


def _round_trip(link: Link | None) -> float | None:
    return None if link is None else link.round_trip


def reading(speculation: Speculation) -> str:
    """A line that says how much of the prompt has been read."""
    return f"reading the prompt, {speculation.prompt_read} of {len(speculation.prompt)} tokens"
