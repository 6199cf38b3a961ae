"""GET /metrics of a node: an HTTP server on threads of its own, for Prometheus alone.

There is no key: what it tells are figures, no text of anybody. It listens on loopback unless the
user names another address.
"""

import asyncio
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gardener.errors import UserError, reason
from gardener.metrics.node import NodeCollector
from gardener.net.address import Address, Inherited, parse
from gardener.stages.phases import Phases

MOST = 8
"""Connections at a time; more are closed."""

PATIENCE = 5.0
"""Seconds that a client has to say something more, and the event loop to be read."""


@contextmanager
def node_metrics(where: str, phases: Phases) -> Iterator[tuple[NodeCollector, Address]]:
    """Serve the metrics of a node at HOST:PORT, or at a PORT on loopback, until the block ends;
    the collector, which is to be told of the node, and where it listens. To be entered on the
    event loop of the node. Raises UserError."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    hidden = CollectorRegistry()
    collector = NodeCollector(hidden, phases)
    registry.register(_OnLoop(collector, asyncio.get_running_loop()))
    server = _listening(_address(where), registry)
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield collector, Address(*server.socket.getsockname()[:2])
    finally:
        server.shutdown()
        server.server_close()


def _address(text: str) -> Address:
    """Raises UserError."""
    place = parse(f"127.0.0.1:{text}" if text.strip().isdigit() else text)
    if isinstance(place, Inherited):
        raise UserError(f"--metrics {text} is no address: write HOST:PORT, or PORT for loopback")
    return place


def _listening(place: Address, registry: CollectorRegistry) -> "_Server":
    try:
        return _Server(place, registry)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen on {place} for --metrics: {reason(error)}; take another port, or an "
            "address of this machine"
        ) from error


class _OnLoop(Collector):
    """Reads a collector on an event loop, from other threads."""

    def __init__(self, collector: Collector, loop: asyncio.AbstractEventLoop) -> None:
        self._collector, self._loop = collector, loop

    def describe(self) -> Iterable[Metric]:
        """Nothing: to register it, nobody need ask the loop."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """What there is now. Raises TimeoutError if the loop is too busy."""
        read: Future[list[Metric]] = Future()

        def answer() -> None:
            if read.set_running_or_notify_cancel():
                try:
                    read.set_result(list(self._collector.collect()))
                except Exception as error:  # it is the scrape that fails, not the node
                    read.set_exception(error)

        self._loop.call_soon_threadsafe(answer)
        try:
            return read.result(PATIENCE)
        finally:
            read.cancel()


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said of scrapes."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, place: Address, registry: CollectorRegistry) -> None:
        """Raises OSError."""
        found = socket.getaddrinfo(*place, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, *_, where = found[0]
        self._places = BoundedSemaphore(MOST)
        super().__init__(where, _Handler)  # type: ignore[arg-type]  # an address of IPv6 is longer
        self.set_app(make_wsgi_app(registry))

    def server_bind(self) -> None:
        """As its bases do, without asking for the name of this machine, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, if there are not too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The end of that thread makes room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that said nothing in time, or left: nobody need be told."""
