"""One end of a link without its socket: greeting, heartbeat, work and parting in one object.

A `Connection` is told what happens (bytes have come, the connection is gone, the time that it asked
for is there) and what its owner wants (send, leave). It answers with the bytes to send, with what
has happened, and with when to wake it. It is given the time and never asks for it. `net/link.py`
carries it over a socket.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from gardener.errors import RemoteError
from gardener.protocol import parting
from gardener.protocol.certificates import Identity
from gardener.protocol.greeting import GREETING_FRAME, Admit, Greeting, Replace
from gardener.protocol.heartbeat import Heartbeat
from gardener.protocol.link_state import End, LinkState, State
from gardener.protocol.messages import (
    PROTOCOL,
    Bye,
    Card,
    Hello,
    Message,
    Ping,
    Pong,
    Welcome,
)
from gardener.protocol.parting import Parting
from gardener.protocol.sight import Look
from gardener.protocol.strangers import HEAD, recognised
from gardener.protocol.wire import FRAME_LIMIT, Decoder, encode

BACKLOG = 256 * 2**20
"""Bytes waiting to be sent with which a peer counts as lost: it reads too slowly, or not at all."""


@dataclass(frozen=True)
class Times:
    """Seconds that a link gives itself and its peer.

    heartbeat  between the Pings on an open link
    silence    without a byte from the peer, after which it is lost
    greeting   for connecting, and then for the greeting
    linger     for our Bye, and what we sent before it, to reach the peer
    """

    heartbeat: float = 0.5
    silence: float = 4.0
    greeting: float = 5.0
    linger: float = 1.0


TIMES = Times()
"""What a link gives itself and its peer unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Neither end refuses the other: the link is open."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The Ping with this stamp was answered after this time."""

    stamp: int
    seconds: float


LinkEvent: TypeAlias = Opened | Answered | Message


class Connection:
    """One end of a link. Once `parting` is set it has ended, and nothing more happens on it."""

    def __init__(
        self,
        end: End,
        card: Card,
        admit: Admit,
        times: Times,
        secured: bool = False,
        *,
        looks: bool = False,
        missed: Card | None = None,
        replace: Replace | None = None,
    ) -> None:
        """`secured`: the peer has to prove who it is, and the link to become private, before
        either end says a word. `looks`: we want no link, only to see who is there (upstream end
        alone). `missed` and `replace`: see `Greeting`."""
        self.end = end
        self.is_open = False
        self.parting: Parting | None = None
        """Why the link has ended."""
        self.lingers = False
        """We have said Bye: keep the connection until the peer closes it, or until `due`. An ended
        link that does not linger is to be closed at once."""
        self.private = not secured
        """What we say can be sent: nobody else reads it, unless that is how it is meant."""
        self.heartbeat = Heartbeat(times.heartbeat, times.silence)
        self._secured = secured
        self._times = times
        self._where = "an unknown address"
        self._state = LinkState(end)
        self._greeting = Greeting(card, admit, times.greeting, missed, replace)
        self._looks = looks
        self._begun = False
        self._head = b""  # the first bytes from a peer that has not shown its card
        self._decoder = Decoder(GREETING_FRAME)
        self._outgoing: list[bytes] = []
        self._due = math.inf  # of the greeting, and later of the end of lingering

    def __str__(self) -> str:
        """The peer: `stage 2 at 10.0.0.3:7000`."""
        if self.peer is None:
            return f"the peer at {self._where}"
        stage = f"stage {self.peer.stage}" if self.peer.stage else "the holder"
        return f"{stage} at {self._where}"

    @property
    def peer(self) -> Card | None:
        """The card of the peer, once it has shown it."""
        return self._greeting.peer

    @property
    def identity(self) -> Identity | None:
        """Who the peer has proved to be, if there are certificates."""
        return self._greeting.identity

    @property
    def due(self) -> float:
        """When to call `wake`; infinity: never."""
        return min(self._due, self.heartbeat.due)

    # What the owner wants.

    def begin(self, where: str, now: float) -> None:
        """There is a connection to this address: the greeting begins."""
        self._where = where
        self._begun = True
        self.heartbeat.heard(now)
        self._due = self._greeting.due(now)
        self._introduce()

    def send(self, *messages: Message) -> None:
        """Say this. Raises LocalError if we may not."""
        frames = []
        for message in messages:
            frames.append(encode(message))
            self._state.sent(message)
        self._outgoing += frames

    def ping(self, padding: int, now: float) -> int:
        """Send a Ping with this many more bytes; returns the stamp with which it is answered."""
        message = self.heartbeat.ping(now, padding)
        self.send(message)
        return message.stamp

    def outgoing(self) -> bytes:
        """The bytes to send now, which are forgotten here."""
        frames, self._outgoing = self._outgoing, []
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def leave(self, why: str, now: float) -> None:
        """End the link with a Bye."""
        self._end(parting.closed_by_us(self, why, politely=True), now)

    def drop(self, why: str, now: float) -> None:
        """End the link at once; it does not linger, even if it had ended before."""
        self._end(parting.closed_by_us(self, why, politely=False), now)
        self._stop_lingering()

    def push_out(self, now: float) -> None:
        """Drop a greeting that is not finished, for one that came later."""
        self._end(parting.pushed_out(self), now)

    # What has happened.

    def proved(self, identity: Identity | None, wall: float, now: float) -> None:
        """The link is private, and the peer has proved that it is this; None: nobody of a ring.
        `wall`: the time in seconds since 1970."""
        self.private = True
        why = self._greeting.disbelief(identity, wall)
        if why is not None:
            self._end(parting.disbelieved(self, why), now)
        elif self.parting is None:
            self._introduce()

    def untrusted(self, why: str, now: float) -> None:
        """The peer has proved nothing, or what comes is not from it; TLS has told it so."""
        self._end(parting.untrusted(self, why), now)

    def distrusted(self, why: str, now: float) -> None:
        """The peer does not believe us."""
        self._end(parting.distrusted(self, why), now)

    def stirred(self, now: float) -> None:
        """Bytes have come over a secured link, and do not yet show who has sent them."""
        self.heartbeat.stirred(now)

    def fell_mute(self, now: float) -> None:
        """The peer has ended TLS: it will say no more, not even Bye, if it has not yet."""
        self._end(parting.muted(self), now)

    def in_the_clear(self, head: bytes, now: float) -> None:
        """The link was to be secured, and the peer begins with these bytes, which are no TLS."""
        self.private = True  # there is nothing to be said that others may not hear
        self._decoder = Decoder(0)
        found = recognised(head, secured=True, accepted=self.end is End.DOWNSTREAM)
        assert found is not None
        self._end(parting.stranger(self, found), now)

    def receive(self, data: bytes, now: float) -> Iterator[LinkEvent]:
        """These bytes have come from the peer; yields what follows. Run it to its end, unless what
        it yields makes you call `refuse`."""
        self.heartbeat.heard(now)
        if self.peer is None and len(self._head) < HEAD:
            self._head += bytes(data[:HEAD])
        try:
            for message in self._decoder.feed(data):
                if self.parting is None:
                    self._state.received(message)
                    yield from self._take(message, now)
                elif isinstance(message, Bye):
                    self._stop_lingering()  # both are leaving: there is nothing to wait for
        except RemoteError as error:
            self.refuse(error, now)

    def refuse(self, error: RemoteError, now: float) -> None:
        """The peer has said something that it may not say, as we or the owner have noticed."""
        self._decoder = Decoder(0)  # nothing that comes now can be trusted
        found = None
        if self.peer is None and not self._secured:
            accepted = self.end is End.DOWNSTREAM
            found = recognised(self._head, secured=False, accepted=accepted)
        why = parting.breach(self, error) if found is None else parting.stranger(self, found)
        self._end(why, now)

    def unsent(self, size: int, now: float) -> None:
        """`size` bytes of what we have sent still wait for the peer to read them."""
        if size > BACKLOG:
            self._end(parting.unread(self, size), now)

    def wake(self, now: float) -> None:
        """The time that we asked for is there."""
        if now >= self._due:
            if self.parting is None:
                self._end(parting.overdue(self, self._greeting.overdue(private=self.private)), now)
            else:
                self._stop_lingering()
        elif now >= self.heartbeat.due:
            ping = self.heartbeat.beat(now)
            if ping is None:
                self._end(parting.silent(self, now - self.heartbeat.last_heard), now)
            else:
                self.send(ping)

    def lost(self, failure: str | None, now: float) -> None:
        """The connection is no more; `failure` says why if it broke."""
        silent = now - self.heartbeat.last_heard
        still = self.heartbeat.stood_still(now)
        self._end(parting.broken(self, failure, silent, still), now)
        self._stop_lingering()

    # How it goes on.

    def _introduce(self) -> None:
        """Begin the greeting, if that is for us to do, and as soon as it can be done."""
        if self.end is End.UPSTREAM and self.private:
            self.send(Look(PROTOCOL) if self._looks else self._greeting.hello())

    def _take(self, message: Message, now: float) -> Iterator[LinkEvent]:
        if isinstance(message, Ping):
            if not self.is_open and self._state.state is State.OPEN:
                yield from self._open(now)
            if self.parting is None:
                self.send(Pong(message.stamp))
        elif isinstance(message, Pong):
            yield Answered(message.stamp, self.heartbeat.answered(message.stamp, now))
        elif isinstance(message, Hello | Welcome):
            yield from self._meet(message, now)
        elif isinstance(message, Bye):
            left = parting.left(self, message, was_open=self.is_open, secured=self._secured)
            self._end(left, now)
        else:
            yield message

    def _meet(self, message: Hello | Welcome, now: float) -> Iterator[LinkEvent]:
        """The peer has shown its card: refuse it, or take our next step of the greeting."""
        why = self._greeting.refusal(message)
        if (pretence := self._greeting.pretence()) is not None:
            self._end(parting.disbelieved(self, pretence), now)
        elif why is not None:
            self._end(parting.refused(self, why), now)
        elif isinstance(message, Hello):
            self.send(self._greeting.welcome(message))
        else:
            self.send(self.heartbeat.ping(now))  # tells the peer that we accept it too
            yield from self._open(now)

    def _open(self, now: float) -> Iterator[LinkEvent]:
        """The owner may still refuse the link when it is told."""
        self._decoder.limit = FRAME_LIMIT
        self._due = math.inf
        self.heartbeat.start(now)
        yield Opened()
        self.is_open = True

    def _end(self, why: Parting, now: float) -> None:
        """The first reason is the one that counts."""
        if self.parting is not None:
            return
        self.parting = why
        self.heartbeat.due = self._due = math.inf
        if not self._begun or not (self.private or why.alerted) or not why.tells:
            return
        if why.bye is not None:
            self.send(why.bye)
        elif why.answer:
            self._outgoing.append(why.answer)
        self.lingers, self._due = True, now + self._times.linger

    def _stop_lingering(self) -> None:
        self.lingers, self._due = False, math.inf
