"""Looking at a peer without becoming its neighbour: who is there, what it does, how far it is.

Nothing changes for the peer: it shows its card and what it does, answers some Pings, and forgets
us. Who looks is told why it sees nothing: whether the name, the machine, the port or what listens
there is the reason.
"""

import asyncio
import contextlib
import random
import re
import socket
import time
from dataclasses import dataclass, replace
from enum import StrEnum

from gardener.errors import GardenerError
from gardener.net.address import Address, failure
from gardener.net.carrier import Carrier
from gardener.net.keys import Keys
from gardener.net.tls import Tls
from gardener.protocol.certificates import Identity
from gardener.protocol.connection import TIMES, Answered, Connection, LinkEvent
from gardener.protocol.link_state import End
from gardener.protocol.messages import Card, Looked, Ping
from gardener.runtime import clock
from gardener.runtime.wording import printable

STEP = 2.5
"""Seconds that each step may take: to resolve, to connect, to be answered, to measure."""

PINGS = 5
"""Pings without padding, of which the quickest counts."""

PADDING = 15 * 2**10
"""Bytes of padding in one Ping: with them it still is a frame of the greeting."""

TRAINS = (4, 64)
"""Padded Pings that are sent one after the other: more where so few tell nothing."""

ENOUGH = 0.005
"""Seconds that a train must take longer than a Ping to tell something."""

FIRST = 64
"""Bytes of what came first that are kept, to tell what it is that listens there."""

TRIES = 2
"""Trains of each length, of which the quicker one counts."""

HTTP = b"GET / HTTP/1.0\r\n\r\n"
"""Said to who is silent: a server of another kind may answer only what it knows."""

NOBODY = Card(0, "this machine", "", 0, 0, 0, 0, "", "", "", 0)
"""Our card, which nobody is shown."""


class Why(StrEnum):
    """How far a look came before it failed."""

    NAME = "the name is not known"
    REFUSED = "nothing listens there"
    TIMEOUT = "nothing comes back"
    NETWORK = "the network says no"
    SILENT = "it accepts connections, and says nothing"
    STRANGER = "something else listens there"
    KEYS = "it is not secured as we are"
    BYE = "it will not be looked at"


@dataclass(frozen=True)
class Unseen:
    """Why nothing is to be seen at an address. `detail`: what the system, or the peer, said."""

    why: Why
    detail: str = ""


@dataclass(frozen=True)
class View:
    """What is to be seen.

    offset      seconds by which the peer's wall clock is ahead of ours
    round_trip  seconds from Ping to Pong, the least of some
    bandwidth   bytes/s to the peer; None: not measured, or too quick to tell
    identity    who the peer has proved to be; None: there are no certificates
    """

    looked: Looked
    offset: float
    round_trip: float
    bandwidth: float | None = None
    identity: Identity | None = None


class Looker(Carrier):
    """One connection that only looks."""

    def __init__(self, keys: Keys | None = None) -> None:
        secured = keys is not None
        core = Connection(End.UPSTREAM, NOBODY, lambda _: None, TIMES, secured, looks=True)
        super().__init__(core, None if keys is None else Tls(keys, dials=True))
        self.first = b""
        self.sent_at = self.seen_at = 0.0  # seconds of our wall clock
        self._seen: asyncio.Future[Looked] = asyncio.get_running_loop().create_future()
        self._answers: asyncio.Queue[GardenerError | None] = asyncio.Queue()

    def data_received(self, data: bytes) -> None:
        self.first += data[: FIRST - len(self.first)]
        super().data_received(data)

    def on_event(self, event: LinkEvent) -> None:
        if isinstance(event, Looked) and not self._seen.done():
            self.seen_at = time.time()
            self._seen.set_result(event)
        elif isinstance(event, Answered):
            self._answers.put_nowait(None)

    def on_end(self, error: GardenerError) -> None:
        if not self._seen.done():
            self._seen.set_exception(error)
            self._seen.exception()  # nobody need wait for it
        self._answers.put_nowait(error)

    async def seen(self) -> Looked:
        """Raises PeerLost or RemoteError."""
        return await self._seen

    async def pings(self, count: int, padding: int = 0) -> float:
        """Seconds until the last of these Pings, sent at once, was answered. Raises GardenerError
        if the peer leaves meanwhile."""
        empty = random.randbytes(padding)  # a tunnel could compress others
        began = clock.now()
        self.core.send(*(Ping(number, empty) for number in range(count)))
        self._settle()
        for _ in range(count):
            error = await self._answers.get()
            if error is not None:
                raise error
        return clock.now() - began

    async def close(self) -> None:
        """We have seen enough."""
        self.core.leave("it was only looked at", clock.now())
        await self._closed()


async def look(place: Address, keys: Keys | None = None, *, measure: bool = True) -> View | Unseen:
    """Look at the peer that listens at `place`. `measure`: the bandwidth too, unless it is at work.
    Takes seconds at most, whatever is there."""
    looker = Looker(keys)
    unreached = await _connect(place, looker)
    if unreached is not None:
        return unreached
    try:
        return await _see(looker, measure)
    except TimeoutError:
        return await _silent(place)
    except GardenerError as error:
        return _refused(looker, str(error))
    finally:
        await looker.close()


def _refused(looker: Looker, why: str) -> Unseen:
    """It has ended the connection, or said what nobody may say."""
    if stranger := listens(looker.first):
        return Unseen(Why.STRANGER, stranger)
    about_keys = not looker.core.private or _ABOUT_KEYS.search(why) is not None
    return Unseen(Why.KEYS if about_keys else Why.BYE, why)


_ABOUT_KEYS = re.compile("TLS|certificate|--keys")
"""What the sentences of `protocol/certificates.py` and `protocol/strangers.py` have in common."""


async def _connect(place: Address, protocol: asyncio.Protocol) -> Unseen | None:
    """Why there is no connection to it; None: there is one."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(STEP):
            await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        return Unseen(Why.NAME, failure(error))
    except TimeoutError:
        return Unseen(Why.NAME, f"no answer for {STEP:g} s")
    try:
        async with asyncio.timeout(STEP):
            await loop.create_connection(lambda: protocol, place.host, place.port)
    except TimeoutError:
        return Unseen(Why.TIMEOUT)
    except ConnectionRefusedError:
        return Unseen(Why.REFUSED)
    except OSError as error:
        return Unseen(Why.NETWORK, failure(error))
    return None


async def _see(looker: Looker, measure: bool) -> View:
    """Raises TimeoutError if nothing is shown, PeerLost or RemoteError if it refuses."""
    asked = time.time()
    async with asyncio.timeout(STEP):
        looked = await looker.seen()
    took = looker.seen_at - asked
    view = View(
        looked,
        offset=looked.sight.clock / 1e6 - (asked + took / 2),
        round_trip=max(took, 0.0),
        identity=looker.core.identity,
    )
    with contextlib.suppress(TimeoutError, GardenerError):
        async with asyncio.timeout(STEP):
            view = replace(view, round_trip=min([await looker.pings(1) for _ in range(PINGS)]))
            if measure and not looked.sight.requests:
                view = replace(view, bandwidth=await _bandwidth(looker, view.round_trip))
    return view


async def _bandwidth(looker: Looker, round_trip: float) -> float | None:
    """Bytes/s to the peer. Raises PeerLost."""
    more = 0.0
    for train in TRAINS:
        more = min([await looker.pings(train, PADDING) for _ in range(TRIES)]) - round_trip
        if more > ENOUGH:
            break
    return train * PADDING / more if more > 0 else None


async def _silent(place: Address) -> Unseen:
    """It takes connections and does not answer: perhaps it knows another language."""
    first = b""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(STEP):
            reader, writer = await asyncio.open_connection(place.host, place.port)
            try:
                writer.write(HTTP)
                first = await reader.read(FIRST)
            finally:
                writer.close()
    stranger = listens(first)
    return Unseen(Why.STRANGER, stranger) if stranger else Unseen(Why.SILENT)


def listens(first: bytes) -> str:
    """What it is that said these bytes first; empty: it may be one of us, or has said nothing."""
    if first.startswith((b"HTTP/", b"<!DOCTYPE HTML")):  # some answer garbage without a head
        return "an HTTP server"
    if first.startswith(b"SSH-"):
        return "an SSH server"
    # The length of a frame of the greeting is below 2**24; what is TLS may be one of us with keys.
    if not first or first[0] in (0x00, 0x14, 0x15, 0x16, 0x17):
        return ""
    return f"something that says {printable(first.decode('ascii', 'replace'))[:20]!r}"
