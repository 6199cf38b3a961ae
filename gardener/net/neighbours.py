"""The two links of a peer in the ring, be it a stage or the holder.

Work comes from the peer before it, upstream, and goes to the peer after it, downstream. Either link
may be missing. What is sent to a missing peer is dropped, since its loss is reported separately.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

from gardener.errors import PeerLost, RemoteError
from gardener.net.address import Address
from gardener.net.dial import dial
from gardener.net.keys import Keys
from gardener.net.link import Handler, Link
from gardener.net.spares import NO_SPARES, Spares
from gardener.protocol.cards import mismatch, with_link
from gardener.protocol.messages import (
    Card,
    Message,
    Segment,
    Verdict,
    microseconds,
)
from gardener.protocol.names import as_name
from gardener.protocol.reports import Lost

NONE = (0, -1)
"""Stands for request and number of a segment where there was no segment."""


class Neighbours:
    """Who stands before and after the peer with this card; `handler` hears what they say."""

    def __init__(
        self,
        card: Card,
        handler: Handler,
        keys: Keys | None = None,
        spares: Spares = NO_SPARES,
        dials: str = "",
    ) -> None:
        """`spares` stand by for the peer after us, which is going to be dialled at `dials`."""
        self.upstream: Link | None = None
        self.downstream: Link | None = None
        self._card = card
        self._dialled = dials
        self._handler = handler
        self._keys = keys
        self._spares = spares
        self._missed: Card | None = None  # the peer after us, since it was lost
        self._ended = {True: (0, 0), False: (0, 0)}  # bytes of links that have, if upstream
        self._given = NONE  # the newest segment that went downstream

    @property
    def card(self) -> Card:
        """Our card, with what is known of our way downstream."""
        link = self.downstream
        known = (None, None) if link is None else (link.round_trip, link.bandwidth)
        return with_link(self._card, *known, self._dialled)

    def traffic(self, upstream: bool) -> tuple[int, int]:
        """Bytes that were received from one side and sent to it, over all its links."""
        return _plus(self._ended[upstream], self.upstream if upstream else self.downstream)

    async def dial(
        self,
        place: Address,
        whom: str,
        *,
        patience: float | None,
        waiting: Callable[[str], None],
        nudge: asyncio.Event | None = None,
    ) -> Link:
        """Link to the peer after us, if its card fits to ours. See `net.dial.dial`."""
        self._dialled = str(place)
        self.downstream = await dial(
            place,
            self._card,
            self._handler,
            admit=lambda peer: mismatch(self._card, peer),
            patience=patience,
            waiting=waiting,
            whom=whom,
            nudge=nudge,
            keys=self._keys,
            spares=replace(self._spares, missed=self._missed),
        )
        self._missed = None
        return self.downstream

    def take(self, link: Link) -> None:
        """The peer before us has come. Raises RemoteError if there is one already: of two that
        greet us at once, the first wins."""
        if self.upstream is not None:
            raise RemoteError(f"{self.upstream} came first")
        self.upstream = link

    def send_down(self, message: Message) -> None:
        """Send downstream. Nothing is raised: a link that breaks reports itself."""
        if isinstance(message, Segment | Verdict):
            self._given = (message.request, message.seq)
        if self.downstream is not None:
            with contextlib.suppress(PeerLost):
                self.downstream.send(message)

    def send_up(self, message: Message) -> None:
        """Send upstream, likewise."""
        if self.upstream is not None:
            with contextlib.suppress(PeerLost):
                self.upstream.send(message)

    def lose(self, link: Link, had: tuple[int, int] = NONE) -> Lost | None:
        """Forget a link that has ended. Returns the report of it, or None if it was not ours.

        had: request and number of the newest segment that came from upstream.
        """
        if link is self.upstream:
            self.upstream, newest = None, had
        elif link is self.downstream:
            self.downstream, newest, self._missed = None, self._given, link.peer
        else:
            return None
        self._ended[link.upstream] = _plus(self._ended[link.upstream], link)
        silent = microseconds(link.silent)
        return Lost(link.peer.stage, *newest, silent, as_name(link.parting.cause))

    async def free(self, why: str) -> None:
        """Close the link downstream politely: somebody else may need the peer after us."""
        link, self.downstream = self.downstream, None
        if link is not None:
            self._missed = link.peer
            self._ended[False] = _plus(self._ended[False], link)
            await link.close(why)

    async def leave(self, why: str) -> None:
        """Close both links politely."""
        links = [link for link in (self.downstream, self.upstream) if link is not None]
        await asyncio.gather(*(link.close(why) for link in links))


def _plus(traffic: tuple[int, int], link: Link | None) -> tuple[int, int]:
    """With what went over this link."""
    received, sent = traffic
    return traffic if link is None else (received + link.received_bytes, sent + link.sent_bytes)
