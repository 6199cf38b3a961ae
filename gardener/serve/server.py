"""Serves a ring until it is told to end: its keeper and the HTTP server side by side."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gardener.errors import UserError, reason
from gardener.net.address import Address
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import Say
from gardener.serve.app import make_app
from gardener.serve.errors import SHUTTING_DOWN, ApiError, Ended
from gardener.serve.house import House
from gardener.serve.keeper import RingKeeper
from gardener.serve.settings import ServeSettings
from gardener.serve.simulated import SimulatedKeeper

BACKLOG = 512
"""Connections that wait to be taken."""

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
    to finish. `begun` is called once requests can come.

    Raises UserError if the ring cannot be opened at all or the address cannot be used, and
    PeerLost if the stages that are started here end before the ring stood once.
    """
    make = RingKeeper if ring.simulate is None else SimulatedKeeper
    keeper = make(ring, say, heard, settings.queue)
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
        await _finish_answers(house, say)
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
    await asyncio.wait(house.answers.values(), timeout=grace)
    for asked in list(house.answers):
        asked.fail(Ended(SHUTTING_DOWN))


class _Protocol(H11Protocol):
    """What is no HTTP gets an error in the same form as everything else."""

    def send_400_response(self, msg: str) -> None:
        """Answer and close: what follows cannot be read."""
        body = ApiError(400, f"{msg} Send HTTP/1.1.", code="invalid_http").body()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


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
            http=_Protocol,
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


def listening(host: str, port: int) -> socket.socket:
    """A socket for the server. Raises UserError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UserError(
            f"cannot listen on {Address(host, port)}: {reason(error)}; take another --host or "
            "--port"
        ) from error
