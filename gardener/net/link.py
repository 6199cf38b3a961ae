"""One link to a neighbour in the ring: what its owner holds, sends on, and is told by.

`dial.py` makes a link to the next peer, `listen.py` takes them from the peer before.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gardener.errors import GardenerError, PeerLost
from gardener.net.carrier import Carrier
from gardener.net.keys import Keys
from gardener.net.tls import Tls
from gardener.protocol.connection import Answered, Connection, LinkEvent, Opened, Times
from gardener.protocol.greeting import Admit, Replace
from gardener.protocol.link_state import End
from gardener.protocol.messages import Card, Message
from gardener.protocol.parting import Parting
from gardener.protocol.sight import Look
from gardener.runtime import clock


class Handler(Protocol):
    """What the owner of a link is told. Called on the loop; must not block."""

    def heard(self, link: "Link", message: Message) -> None:
        """A message other than the greeting, Ping, Pong and Bye. May raise RemoteError, which
        ends the link as if the breach had been found here."""

    def lost(self, link: "Link", error: GardenerError) -> None:
        """Called once when an open link ends and we did not ask for it: PeerLost if the peer left,
        broke off or went silent, RemoteError if it broke the protocol."""


@dataclass(frozen=True)
class Terms:
    """What all links from one `dial` or `listen` have in common."""

    card: Card
    handler: Handler
    admit: Admit
    times: Times
    keys: Keys | None = None
    """With which links are secured."""
    missed: Card | None = None
    """The stage in whose place a spare is asked to step."""
    replace: Replace | None = None
    """Of a spare: what it does when it is asked so."""


class Link(Carrier):
    """A connection to a neighbour; get one from `dial` or `listen`."""

    def __init__(
        self,
        terms: Terms,
        *,
        upstream: bool,
        opened: Callable[["Link"], None],
        failed: Callable[["Link", GardenerError], None],
        looked: Callable[["Link"], None] = lambda link: None,
    ) -> None:
        """`opened` or else `failed` is called once, at the end of the greeting; `looked` when the
        peer only looks: then it is to be sent what there is to see."""
        end = End.DOWNSTREAM if upstream else End.UPSTREAM
        keys = terms.keys
        core = Connection(
            end,
            terms.card,
            terms.admit,
            terms.times,
            secured=keys is not None,
            missed=terms.missed,
            replace=terms.replace,
        )
        super().__init__(core, None if keys is None else Tls(keys, dials=not upstream))
        self.card = terms.card  # ours
        self.upstream = upstream  # the peer is our upstream: it dialled, we accepted
        self.bandwidth: float | None = None  # bytes/s to the peer, once it has been measured
        self._handler = terms.handler
        self._opened = opened
        self._failed = failed
        self._looked = looked
        self._owned = upstream  # a link that we dial has no owner until it is adopted
        self._told = False  # the owner knows of the end, or wished it
        self._pings: dict[int, asyncio.Future[float]] = {}  # stamp -> seconds to the answer

    def __str__(self) -> str:
        """The peer: `stage 2 at 10.0.0.3:7000`."""
        return str(self.core)

    @property
    def peer(self) -> Card:
        """The peer's card; known once the link is open."""
        assert self.core.peer is not None
        return self.core.peer

    @property
    def where(self) -> str:
        """The address of the peer."""
        return self._where

    @property
    def host(self) -> str:
        """The machine of the peer, as an address."""
        return self._where.rpartition(":")[0]

    @property
    def round_trip(self) -> float | None:
        """Seconds from Ping to Pong: the least of the recent ones, so without our own queues."""
        return self.core.heartbeat.round_trip

    @property
    def silent(self) -> float:
        """Seconds since the peer was last heard."""
        return max(clock.now() - self.core.heartbeat.last_heard, 0.0)

    @property
    def parting(self) -> Parting:
        """Why the link has ended. Ask only when it has."""
        assert self.core.parting is not None
        return self.core.parting

    # What the owner calls.

    def adopt(self) -> None:
        """From now on the handler is told of the end."""
        self._owned = True

    def send(self, *messages: Message) -> None:
        """Queue messages to go out in one write; never waits.

        Raises PeerLost if the link has ended, LocalError if we may not say this.
        """
        self._check()
        self.core.send(*messages)
        self._settle()
        self._check_end()

    async def ping(self, padding: int = 0) -> float:
        """Seconds until the peer has answered a Ping with `padding` more bytes in it.

        Raises PeerLost or RemoteError if the link ends meanwhile.
        """
        self._check()
        stamp = self.core.ping(padding, clock.now())
        answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._pings[stamp] = answered
        try:
            self._settle()
            return await answered
        finally:
            del self._pings[stamp]

    async def close(self, why: str) -> None:
        """Say Bye, give it some time to arrive, and close. `lost` is not called."""
        self._told = True
        self.core.leave(why, clock.now())
        await self._closed()

    async def abort(self, why: str) -> None:
        """Close at once, without a Bye and without flushing. `lost` is not called."""
        self._told = True
        self.core.drop(why, clock.now())
        await self._closed()

    def push_out(self) -> None:
        """Drop a greeting that is not finished, for one that came later."""
        self.core.push_out(clock.now())
        self._settle()

    def _check(self) -> None:
        self._check_end()
        if self._transport is None or self._transport.is_closing():
            raise PeerLost(f"the connection to {self} is closed")

    def _check_end(self) -> None:
        if self.ended is not None:
            raise PeerLost(str(self.ended))

    # What the carrier tells.

    def on_event(self, event: LinkEvent) -> None:
        if isinstance(event, Opened):
            self._opened(self)
        elif isinstance(event, Look):
            self._looked(self)
        elif isinstance(event, Answered):
            waiting = self._pings.get(event.stamp)
            if waiting is not None and not waiting.done():
                waiting.set_result(event.seconds)
        else:
            self._handler.heard(self, event)

    def on_end(self, error: GardenerError) -> None:
        for waiting in self._pings.values():
            if not waiting.done():
                waiting.set_exception(error)
        if self._told:
            return
        self._told = True
        if not self.core.is_open:
            self._failed(self, error)
        elif self._owned:
            self._handler.lost(self, error)
