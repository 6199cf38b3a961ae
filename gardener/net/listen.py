"""Listening: links from the stage before, each greeted before it counts."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from gardener.errors import GardenerError, UserError
from gardener.net.address import Address, Inherited, bind_problem, every, inherited, parse
from gardener.net.link import Handler, Link, Terms
from gardener.protocol.connection import TIMES, Times
from gardener.protocol.greeting import Admit
from gardener.protocol.messages import Card
from gardener.protocol.parting import BROKE

GREETINGS = 16
"""Unfinished greetings a listener keeps; one more pushes out the oldest."""


class Listener:
    """A listening socket and the greetings under way on it. Links that are open are not its own."""

    address: Address
    """Where it listens, with the port that was really bound."""

    def __init__(
        self,
        terms: Terms,
        card: Callable[[], Card],
        met: Callable[[Link], None],
        refused: Callable[[str], None],
    ) -> None:
        self._terms = terms
        self._card = card
        self._met = met
        self._refused = refused
        self._greetings: dict[Link, None] = {}  # unfinished ones, oldest first
        self._server: asyncio.Server | None = None

    async def close(self) -> None:
        """Stop listening and drop unfinished greetings; open links go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in list(self._greetings):
            await link.abort("we stop listening")
        self._greetings.clear()
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
        link = Link(
            replace(self._terms, card=self._card()),
            upstream=True,
            opened=self._opened,
            failed=self._failed,
        )
        self._greetings[link] = None
        return link

    def _opened(self, link: Link) -> None:
        del self._greetings[link]
        self._met(link)

    def _failed(self, link: Link, error: GardenerError) -> None:
        self._greetings.pop(link, None)
        if link.parting.cause != BROKE:  # as of who looks whether somebody listens
            self._refused(str(error).replace(link.where, link.host))  # its port says nothing


async def listen(
    address: Address | Inherited | str,
    card: Callable[[], Card] | Card,
    handler: Handler,
    *,
    admit: Admit,
    met: Callable[[Link], None],
    refused: Callable[[str], None] = lambda sentence: None,
    times: Times = TIMES,
) -> Listener:
    """Accept links from upstream at `address`; `met` gets each one that is open, and may still
    raise RemoteError to refuse it.

    A greeting that fails ends only its own connection; `refused` is told why, in a sentence that is
    the same for all connections from one machine, unless the peer went without a word.
    Raises UserError if the address cannot be had.
    """
    place = parse(address) if isinstance(address, str) else address
    show = card if callable(card) else lambda: card
    terms = Terms(show(), handler, admit, times)
    listener = Listener(terms, show, met, refused)
    await listener._serve(place)
    return listener
