"""Serves a ring until it is told to end: its keeper and the HTTP server side by side."""

import asyncio
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeAlias

import uvicorn

from gardener.errors import UserError, reason
from gardener.net.address import Address
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import Say
from gardener.serve.app import make_app
from gardener.serve.connection import Connection
from gardener.serve.errors import SHUTTING_DOWN, Ended
from gardener.serve.house import House
from gardener.serve.keeper import RingKeeper
from gardener.serve.settings import ServeSettings
from gardener.serve.simulated import SimulatedKeeper

BACKLOG = 512
"""Connections that wait to be taken."""

RESERVE = 512
"""Descriptors of open files beside those of connections: for the ring, its stages and the model."""

LAST_WORDS = 2
"""Seconds that connections have to close once all answers have ended."""


Begun: TypeAlias = Callable[[RingKeeper, str], None]
"""Is told who keeps the ring, and where it is served."""


def nobody(keeper: RingKeeper, address: str) -> None:
    """A `Begun` for where nobody watches."""


async def serve(
    settings: ServeSettings, ring: RingSettings, say: Say, heard: Say, begun: Begun = nobody
) -> None:
    """Serve until this is cancelled; answers that are under way then have `settings.grace` seconds
    to finish, unless this is cancelled again. `begun` is called once requests can come.

    Raises UserError if the ring cannot be opened at all or the address cannot be used, and
    PeerLost if the stages that are started here end before the ring stood once.
    """
    make = RingKeeper if ring.simulate is None else SimulatedKeeper
    keeper = make(ring, say, heard, settings.queue)
    settings = replace(settings, connections=most_connections(settings.connections, say))
    house = House(settings, keeper, settings.model_name(ring), int(time.time()))
    server, sock = http_server(settings, house), listening(settings.host, settings.port)
    scheme = "http" if settings.tls_cert is None else "https"
    address = f"{scheme}://{Address(settings.host, sock.getsockname()[1])}"
    say(f"listening on {address}")
    begun(keeper, address)
    keeping = asyncio.create_task(keeper.run())
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        done, _ = await asyncio.wait([keeping, serving], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        try:
            await _finish_answers(house, say)
        finally:
            house.feed.close()
            server.should_exit = True
            await asyncio.wait([serving])
            keeping.cancel()
            await asyncio.gather(keeping, serving, return_exceptions=True)


async def _finish_answers(house: House, say: Say) -> None:
    """Take no more requests, and let those that are there finish, for a while."""
    house.closing.set()
    if not house.answers:
        return
    grace, count = house.settings.grace, len(house.answers)
    under_way = "1 answer is" if count == 1 else f"{count} answers are"
    say(f"{under_way} under way: {grace:g} s to finish, or end at once with another Ctrl-C")
    try:
        await asyncio.wait(house.answers.values(), timeout=grace)
    finally:  # of those that are told to end at once, too
        for asked in list(house.answers):
            asked.fail(Ended(SHUTTING_DOWN))


class _Server(uvicorn.Server):
    """It leaves signals to the command."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def http_server(settings: ServeSettings, house: House) -> uvicorn.Server:
    """It serves the house once it is given a socket. Raises UserError for a certificate that cannot
    be used."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is not None and key is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise UserError(
                f"--tls-cert {cert} and --tls-key {key} cannot be used: {reason(error)}"
            ) from error
    return _Server(
        uvicorn.Config(
            make_app(house),
            http=Connection,
            limit_concurrency=settings.connections,
            loop="none",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            ssl_certfile=cert,
            ssl_keyfile=key,
            timeout_graceful_shutdown=LAST_WORDS,
        )
    )


def most_connections(wanted: int, say: Say) -> int:
    """So many, or fewer if this process may not open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVE
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    most = min(wanted, max(needed - RESERVE, needed // 2))
    if most < wanted:
        say(f"{most} connections are taken, not {wanted}: this process may open {hard} files")
    return most


def listening(host: str, port: int) -> socket.socket:
    """A socket for the server. Raises UserError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UserError(
            f"cannot listen on {Address(host, port)}: {reason(error).partition(' (')[0]}; take "
            "another --host or --port"
        ) from error
