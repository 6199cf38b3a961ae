"""Carries a `protocol.connection.Connection` over an asyncio transport.

The core decides. Here its bytes are written, what comes is given to it, it is woken when it asks
for it, and the transport is closed when the core has ended. On a secured link TLS is between the
core and the transport (`tls.py`), and the core is told what that finds.
"""

import asyncio
import math
import socket
import time
from abc import ABC, abstractmethod
from typing import cast

from gardener.errors import GardenerError, PeerLost, RemoteError
from gardener.net.address import failure, of_peer
from gardener.net.tls import Tls
from gardener.protocol.connection import Connection, LinkEvent
from gardener.runtime import clock

HIGH_WATER = 2**20
"""Bytes waiting to be sent above which `drain` waits."""


class Carrier(ABC, asyncio.Protocol):
    """One end of a connection. A subclass is told of events and of the end."""

    def __init__(self, core: Connection, tls: Tls | None = None) -> None:
        self.core = core
        self.sent_bytes = 0
        self.received_bytes = 0
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        self._where = ""
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf  # what the timer is set to
        self._gone = asyncio.Event()  # the connection no longer exists
        self._flowing = asyncio.Event()  # `drain` need not wait
        self._flowing.set()

    @property
    def ended(self) -> GardenerError | None:
        """Why the link has ended, or None while it lives."""
        return self.core.parting.error if self.core.parting else None

    @property
    def congested(self) -> bool:
        """Whether `drain` would wait."""
        return not self._flowing.is_set()

    async def drain(self) -> None:
        """Wait while too much waits to be sent. Raises PeerLost if the link ends meanwhile."""
        await self._flowing.wait()
        if self.ended is not None:
            raise PeerLost(str(self.ended))

    @abstractmethod
    def on_event(self, event: LinkEvent) -> None:
        """Something has happened on the link. May raise RemoteError, which ends it."""

    @abstractmethod
    def on_end(self, error: GardenerError) -> None:
        """The link has ended. May be called more than once."""

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._where = of_peer(transport.get_extra_info("peername"))
        if self.ended is None:  # else it was given up before the connection was ours
            self.core.begin(self._where, clock.now())
            if self._tls is not None:
                self._tls.begin()
        self._settle()

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self._tls is None:
            self._hear(data)
        else:
            self._hear_sealed(self._tls, data)
        self._settle()

    def _hear(self, data: bytes) -> None:
        """These bytes were said to the core."""
        try:
            for event in self.core.receive(data, clock.now()):
                self._flush()  # what we answer goes out before the owner has its say
                if self.ended is None:
                    self.on_event(event)
        except RemoteError as error:
            self.core.refuse(error, clock.now())

    def _hear_sealed(self, tls: Tls, data: bytes) -> None:
        """These bytes have come over a link that is to be secured."""
        said = tls.take(data)
        if tls.foreign:
            self._tls = None
            self.core.in_the_clear(tls.foreign, clock.now())
        elif tls.established and not self.core.private:
            self.core.proved(tls.peer, time.time(), clock.now())
        if said:
            self._hear(said)
        else:
            self.core.stirred(clock.now())
        if tls.refused:
            self.core.distrusted(tls.refused, clock.now())
        elif tls.broken:
            self.core.untrusted(tls.broken, clock.now())
        elif tls.ended:
            self.core.fell_mute(clock.now())

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        self._flowing.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        self.core.lost(None if exc is None else failure(exc), clock.now())
        self._settle()

    # What follows from what the core was told.

    def _settle(self) -> None:
        self._flush()
        self._set_timer()
        if self.ended is not None:
            self._let_go()
            self._flowing.set()
            self.on_end(self.ended)

    def _flush(self) -> None:
        data = self.core.outgoing()
        if self._tls is not None:
            data = self._tls.give(data)
        if not data or self._transport is None or self._transport.is_closing():
            return
        self.sent_bytes += len(data)
        self._transport.write(data)
        self.core.unsent(self._transport.get_write_buffer_size(), clock.now())

    def _set_timer(self) -> None:
        due = self.core.due
        if due == self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = due, None
        if due < math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(due - clock.now(), self._wake)

    def _wake(self) -> None:
        due, self._due = self._due, math.inf
        self.core.wake(max(clock.now(), due))  # a loop may be early by a tick of its clock
        self._settle()

    def _let_go(self) -> None:
        """End our direction of the connection while the core lingers, else close it.

        To close with unread bytes in the socket would reset the connection, and the peer might
        never see our Bye. A transport that cannot end one direction is left as it is: the peer
        closes when it reads the Bye. TLS is told that we end first, so that nobody can feign it.
        """
        if self._transport is None:
            return
        if not self.core.lingers:
            self._transport.abort()
        elif not self._transport.is_closing() and self._transport.can_write_eof():
            if self._tls is not None and (last := self._tls.end()):
                self._transport.write(last)
            try:
                self._transport.write_eof()
            except OSError:  # the peer has reset the connection, and our loop does not know yet
                self._transport.abort()

    async def _closed(self) -> None:
        """Wait until the connection is gone, once the core has ended."""
        self._settle()
        if self._transport is not None:
            await self._gone.wait()
