"""One TCP connection to a neighbour in the ring.

`dial.py` makes a link to the next stage, `listen.py` takes them from the stage before. A `Link` is
an asyncio protocol: bytes come in as a callback and leave as messages in that same callback.

Each end of a link pings the other, and each decides for itself when the other is lost.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from gardener.errors import GardenerError, PeerLost, RemoteError
from gardener.net.address import failure, of_peer
from gardener.net.pings import Pings
from gardener.protocol.link_state import End, LinkState
from gardener.protocol.messages import (
    PROTOCOL,
    Bye,
    Card,
    Hello,
    Message,
    Ping,
    Pong,
    Welcome,
    printable,
)
from gardener.protocol.wire import FRAME_LIMIT, Decoder, encode

HEARTBEAT = 0.5
"""Seconds between the Pings on an open link."""

SILENCE = 4.0
"""Seconds without a byte from the peer after which it is lost."""

GREETING = 5.0
"""Seconds that connecting, and then the greeting, may take."""

GREETING_FRAME = 16 * 2**10
"""Frame limit, in bytes, for a peer that has not introduced itself yet."""

AFTERMATH = 1.0
"""Seconds after this process has stood still for which a link that breaks broke because of that."""

LINGER = 1.0
"""Seconds that our Bye, and what we sent before it, has to reach the peer."""

HIGH_WATER = 2**20
"""Bytes waiting to be sent above which `drain` waits."""

BACKLOG = 256 * 2**20
"""Bytes waiting to be sent with which a peer counts as lost: it reads too slowly, or not at all."""

Admit = Callable[[Card], str | None]
"""Takes the peer's card; returns why the link is refused, or None."""


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
    """What all links from one `dial` or `listen` have in common. Times in seconds."""

    card: Card
    handler: Handler
    admit: Admit
    heartbeat: float
    silence: float
    greeting: float


class Link(asyncio.Protocol):
    """A connection to a neighbour; get one from `dial` or `listen`."""

    card: Card
    """Ours."""
    peer: Card
    """Theirs; known once the link is open."""

    def __init__(
        self,
        terms: Terms,
        *,
        upstream: bool,
        opened: Callable[["Link"], None],
        failed: Callable[["Link", GardenerError], None],
    ) -> None:
        """`opened` or else `failed` is called once, at the end of the greeting."""
        self.card = terms.card
        self.upstream = upstream  # the peer is our upstream: it dialled, we accepted
        self.last_heard = 0.0  # loop time
        self.cause = ""  # why the open link ended, said of "it": `it went silent`
        self.stood_still = 0.0  # seconds that this process did before it ended, if that is why
        self.sent_bytes = 0
        self.received_bytes = 0
        self.bandwidth: float | None = None  # bytes/s to the peer, once `gauge` has found out
        self._terms = terms
        self._opened = opened
        self._failed = failed
        self._session = LinkState(End.DOWNSTREAM if upstream else End.UPSTREAM)
        self._decoder = Decoder(GREETING_FRAME)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._open = False
        self._owned = upstream  # one that we dial has no owner until it is adopted
        self._ended: GardenerError | None = None
        self._gone = asyncio.Event()  # the connection no longer exists
        self._flowing = asyncio.Event()  # `drain` need not wait
        self._flowing.set()
        self._quiet_beats = 0
        self._beat_due = 0.0  # loop time
        self._stood: tuple[float, float] = (0.0, 0.0)  # seconds that it did, and when that was over
        self._pings = Pings(terms.silence)
        self._where = "an unknown address"

    def __str__(self) -> str:
        """`stage 2 at 10.0.0.3:7000`."""
        if not hasattr(self, "peer"):
            return f"the peer at {self._where}"
        return f"{_stage(self.peer)} at {self._where}"

    @property
    def host(self) -> str:
        """The machine of the peer, as an address."""
        return self._where.rpartition(":")[0]

    @property
    def round_trip(self) -> float | None:
        """Seconds from Ping to Pong: the least of the last few, so without our own queues."""
        return self._pings.round_trip

    # What the owner calls.

    def adopt(self) -> None:
        """From now on the handler is told of the end."""
        self._owned = True

    def send(self, *messages: Message) -> None:
        """Queue messages to go out in one write; never waits.

        Raises PeerLost if the link has ended, LocalError if we may not say this.
        """
        if self._ended is not None:
            raise PeerLost(str(self._ended))
        if self._transport is None or self._transport.is_closing():
            raise PeerLost(f"the connection to {self} is closed")
        self._say(*messages)
        if self._ended is not None:
            raise PeerLost(str(self._ended))

    async def ping(self, padding: int = 0) -> float:
        """Seconds until the peer has answered a Ping with so many more bytes in it; one at a time.

        Raises PeerLost or RemoteError if the link ends meanwhile.
        """
        message, answered = self._pings.probe(padding)
        try:
            self.send(message)
            return await answered
        finally:
            answered.cancel()  # where it was not sent, nobody waits for the end of the link

    async def drain(self) -> None:
        """Wait while too much waits to be sent. Raises PeerLost if the link ends meanwhile."""
        await self._flowing.wait()
        if self._ended is not None:
            raise PeerLost(str(self._ended))

    @property
    def congested(self) -> bool:
        """Whether `drain` would wait."""
        return not self._flowing.is_set()

    @property
    def ended(self) -> GardenerError | None:
        """Why the link has ended, or None while it lives."""
        return self._ended

    async def close(self, why: str) -> None:
        """Say Bye, flush for at most `LINGER` seconds, and close. `lost` is not called."""
        self._finish(PeerLost(f"we closed the link to {self}: {why}"), bye=why)
        if self._transport is not None:
            await self._gone.wait()

    async def abort(self, why: str) -> None:
        """Close at once, without a Bye and without flushing. `lost` is not called."""
        self._finish(PeerLost(f"we closed the link to {self}: {why}"))
        if self._transport is not None:
            self._transport.abort()
            await self._gone.wait()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._ended is not None:  # pushed out before the connection was ours
            self._transport.abort()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._where = of_peer(transport.get_extra_info("peername"))
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        loop = asyncio.get_running_loop()
        self.last_heard = loop.time()
        self._timer = loop.call_later(self._terms.greeting, self._greeting_overdue)
        if not self.upstream:
            self._say(Hello(PROTOCOL, self.card, secrets.token_bytes(16)))

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self.last_heard = asyncio.get_running_loop().time()
        self._quiet_beats = 0
        if self._ended is not None:
            return  # said before the peer knew that we are leaving
        try:
            for message in self._decoder.feed(data):
                self._session.received(message)
                self._receive(message)
                if self._ended is not None:
                    return
        except RemoteError as error:
            self.cause = f"it broke the protocol: {error}"
            self._end(RemoteError(f"{self} broke the protocol: {error}"), bye=str(error))

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        self._flowing.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        if exc is None:
            reason = f"{self} closed the connection without saying why"
        else:
            reason = f"the connection to {self} broke ({failure(exc)})"
        self.cause = self.cause or "the connection broke"
        self.stood_still = self._stillness()
        if self.stood_still:
            reason = f"this process stood still for {self.stood_still:.0f} s, and {reason}"
        self._end(PeerLost(f"{reason}, {self._last_heard()}"))
        self._cancel_timer()

    # The greeting, and then the life of the link.

    def _say(self, *messages: Message) -> None:
        """`send` for the link itself: when the connection is closing, `connection_lost` tells."""
        if self._transport is None or self._transport.is_closing():
            return
        frames = []
        for message in messages:
            frames.append(encode(message))
            self._session.sent(message)
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        self.sent_bytes += len(data)
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > BACKLOG:
            self._overflow(self._transport)

    def _receive(self, message: Message) -> None:
        if isinstance(message, Ping):
            if not self._open:
                self._begin()
            self._say(Pong(message.stamp))
        elif isinstance(message, Pong):
            self._pings.answered(message.stamp)
        elif isinstance(message, Hello | Welcome):
            self._meet(message)
        elif isinstance(message, Bye):
            verb = "left" if self._open else "refused the link"
            self.cause = f"it {verb}: {printable(message.why)}"
            self._end(PeerLost(f"{self} {verb}: {printable(message.why)}"))
        else:
            self._terms.handler.heard(self, message)

    def _meet(self, message: Hello | Welcome) -> None:
        """The peer has shown its card: refuse it, or take our next step of the greeting."""
        self.peer = message.card
        refusal = self._terms.admit(message.card)
        if refusal is not None:
            self._end(PeerLost(f"we refused {self}: {printable(refusal)}"), bye=refusal)
        elif isinstance(message, Hello):
            self._say(Welcome(PROTOCOL, self.card, message.nonce))
        else:
            self._say(self._pings.ping())  # tells the peer that we accept it too
            self._begin()

    def _begin(self) -> None:
        self._decoder.limit = FRAME_LIMIT
        self._cancel_timer()
        self._schedule_beat()
        self._opened(self)
        self._open = True

    def _schedule_beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._beat_due = loop.time() + self._terms.heartbeat
        self._timer = loop.call_later(self._terms.heartbeat, self._beat)

    def _beat(self) -> None:
        # Beats are counted rather than seconds: if it was this process that stood still, the
        # peer's bytes are still waiting to be read, and a clock would call it lost too early.
        self._note_lateness()
        self._quiet_beats += 1
        if self._quiet_beats * self._terms.heartbeat >= self._terms.silence:
            self.cause = "it went silent"
            self._end(PeerLost(f"{self} went silent, {self._last_heard()}"))
            return
        self._say(self._pings.ping())
        self._schedule_beat()

    def _note_lateness(self) -> None:
        """Where our own beat is so late, the peer has heard nothing and may have given us up."""
        now = asyncio.get_running_loop().time()
        late = now - self._beat_due
        if self._open and late >= self._terms.silence - 2 * self._terms.heartbeat:
            self._stood = (late, now)

    def _stillness(self) -> float:
        """Seconds for which this process stood still until just now."""
        self._note_lateness()
        seconds, until = self._stood
        return seconds if asyncio.get_running_loop().time() - until <= AFTERMATH else 0.0

    def _overflow(self, transport: asyncio.Transport) -> None:
        self.cause = f"it left {transport.get_write_buffer_size()} bytes unread"
        self._end(PeerLost(f"{self} does not read what it is sent: {self.cause}"))

    def _last_heard(self) -> str:
        silent = asyncio.get_running_loop().time() - self.last_heard
        return f"last heard {silent:.1f} s ago"

    # The end.

    def give_up(self) -> None:
        """Drop a greeting that is not finished, for one that came later."""
        self._end(PeerLost(f"{self}: the greeting was pushed out by newer ones"))

    def _greeting_overdue(self) -> None:
        why = f"the greeting was not finished within {self._terms.greeting:g} s"
        self._end(PeerLost(f"{self}: {why}"), bye=why)

    def _end(self, error: GardenerError, *, bye: str | None = None) -> None:
        """The link ends for a reason not asked for by its owner, who is told."""
        if not self._finish(error, bye=bye):
            return
        if not self._open:
            self._failed(self, error)
        elif self._owned:
            self._terms.handler.lost(self, error)

    def _finish(self, error: GardenerError, *, bye: str | None = None) -> bool:
        """Stop listening and let go of the connection; False if that was done before."""
        if self._ended is not None:
            return False
        self._cancel_timer()
        transport = self._transport
        if transport is not None and not transport.is_closing():
            if bye is not None and transport.can_write_eof():
                self._part(transport, bye)
            else:
                transport.abort()
        self._ended = error
        self._flowing.set()
        self._pings.end(error)
        return True

    def _part(self, transport: asyncio.Transport, why: str) -> None:
        # To close with unread bytes in the socket would reset the connection, and the peer might
        # never see the Bye. So: end only our direction, and read on until the peer closes.
        self._say(Bye(printable(why)[:512]))
        try:
            transport.write_eof()
        except OSError:  # the peer has reset the connection, and our loop does not know yet
            transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(LINGER, transport.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _stage(card: Card) -> str:
    return "the holder" if card.stage == 0 else f"stage {card.stage}"
