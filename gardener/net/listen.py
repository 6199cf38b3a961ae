"""Listening: links from the stage before, each greeted before it counts.

A peer that is not ready yet listens all the same, and refuses every greeting with a sentence of
what it does (`refuse_all`). Once it is ready the same socket goes on (`listen`): whoever dials
never finds it closed.
"""

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gardener.errors import Distrusted, GardenerError, RemoteError, UserError
from gardener.net.address import Address, Inherited, bind_problem, every, inherited, parse
from gardener.net.keys import Keys
from gardener.net.link import Handler, Link, Terms
from gardener.protocol.connection import TIMES, Times
from gardener.protocol.greeting import Admit, Replace
from gardener.protocol.messages import PROTOCOL, Card, Looked, Message
from gardener.protocol.sight import Sight
from gardener.runtime.clock import wall_clock

GREETINGS = 16
"""Unfinished greetings a listener keeps; one more pushes out the oldest."""

LOOKERS = 8
"""Those who only look, likewise. They push out no greeting."""


def ignore(sentence: str) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Host:
    """Who takes the links of a listening socket; see `listen`."""

    terms: Terms
    card: Callable[[], Card]
    met: Callable[[Link], None]
    refused: Callable[[str], None]
    distrusted: Callable[[str], None]
    sight: Callable[[], Sight]


class Listener:
    """A listening socket and the greetings under way on it. Links that are open are not its own."""

    address: Address
    """Where it listens, with the port that was really bound."""

    def __init__(self, host: Host) -> None:
        self.host = host
        """Of every greeting that begins from now on."""
        self._greetings: dict[Link, None] = {}  # unfinished ones, oldest first
        self._lookers: dict[Link, None] = {}  # oldest first
        self._server: asyncio.Server | None = None

    async def close(self) -> None:
        """Stop listening and drop unfinished greetings; open links go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in (*self._greetings, *self._lookers):
            await link.abort("we stop listening")
        self._greetings.clear()
        self._lookers.clear()
        await asyncio.sleep(0)  # lets the loop close the socket

    async def _serve(self, place: Address | Inherited) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(place, Inherited):
            self._server = await loop.create_server(self._accept, sock=inherited(place))
        else:
            try:
                if sock := every(place):
                    self._server = await loop.create_server(self._accept, sock=sock)
                else:
                    self._server = await loop.create_server(self._accept, place.host, place.port)
            except OSError as error:
                raise UserError(bind_problem(place, error)) from error
        self.address = Address(*self._server.sockets[0].getsockname()[:2])

    def _accept(self) -> Link:
        if len(self._greetings) >= GREETINGS:
            # Drop the oldest: an honest peer finishes its greeting in a moment.
            next(iter(self._greetings)).push_out()
        host = self.host
        link = Link(
            dataclasses.replace(host.terms, card=host.card()),
            upstream=True,
            opened=partial(self._opened, host),
            failed=partial(self._failed, host),
            looked=partial(self._looked, host),
        )
        self._greetings[link] = None
        return link

    def _opened(self, host: Host, link: Link) -> None:
        del self._greetings[link]
        host.met(link)

    def _looked(self, host: Host, link: Link) -> None:
        """Show this one who is here. It has until its greeting would have to be finished."""
        del self._greetings[link]
        if len(self._lookers) >= LOOKERS:
            next(iter(self._lookers)).push_out()
        self._lookers[link] = None
        link.send(Looked(PROTOCOL, host.card(), host.sight()))

    def _failed(self, host: Host, link: Link, error: GardenerError) -> None:
        if link in self._lookers:
            del self._lookers[link]
            return  # to leave is what they came for
        self._greetings.pop(link, None)
        host.refused(str(error))
        if isinstance(error, Distrusted | RemoteError) or not link.parting.cause:
            host.distrusted(str(error))  # all but those who have just left


async def listen(
    address: Address | Inherited | Listener | str,
    card: Callable[[], Card] | Card,
    handler: Handler,
    *,
    admit: Admit,
    met: Callable[[Link], None],
    refused: Callable[[str], None] = ignore,
    distrusted: Callable[[str], None] = ignore,
    sight: Callable[[], Sight] | None = None,
    times: Times = TIMES,
    keys: Keys | None = None,
    replace: Replace | None = None,
) -> Listener:
    """Accept links from upstream at `address`; `met` gets each one that is open, and may still
    raise RemoteError to refuse it. A `Listener` goes on as this one.

    A greeting that fails ends only its own connection; `refused` is told why, in a sentence,
    and `distrusted` if it is not just that the peer has left. Those who only look are
    shown `sight`. `replace`: see `Greeting`. Raises UserError if the address cannot be had.
    """
    show = card if callable(card) else lambda: card
    host = Host(
        Terms(show(), handler, admit, times, keys, replace=replace),
        show,
        met,
        refused,
        distrusted,
        sight or _sight,
    )
    if isinstance(address, Listener):
        address.host = host
        return address
    listener = Listener(host)
    await listener._serve(parse(address) if isinstance(address, str) else address)
    return listener


def _sight() -> Sight:
    """What is to be seen of one that says nothing of itself."""
    return Sight(wall_clock())


async def refuse_all(
    address: Address | Inherited | Listener,
    card: Card,
    why: Admit,
    sight: Callable[[], Sight],
    keys: Keys | None = None,
    replace: Replace | None = None,
    *,
    distrusted: Callable[[str], None] = ignore,
) -> Listener:
    """Listen at `address`, but refuse whoever dials, for what `why` says then, until `listen` is
    given the listener. Only those who look are shown `card`. `replace`: see `Greeting`. Raises
    UserError if the address cannot be had."""
    nobody = _Nobody()
    return await listen(
        address,
        card,
        nobody,
        admit=why,
        met=nobody.met,
        distrusted=distrusted,
        sight=sight,
        keys=keys,
        replace=replace,
    )


class _Nobody:
    """Owns no links, since all are refused."""

    def met(self, link: Link) -> None:
        raise RemoteError("nobody is here yet")

    def heard(self, link: Link, message: Message) -> None:
        raise RemoteError("nobody is here yet")

    def lost(self, link: Link, error: GardenerError) -> None:
        """Of no concern."""
