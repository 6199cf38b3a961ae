"""Connections within one process: asyncio transports over wires with delay, bandwidth and jitter.

All that makes real links (`dial`, `listen`, `Link`) runs over these unchanged, if the event loop
makes its connections by a `MemoryNetwork` (see `simulate/loop.py`). Under a virtual clock times are
exact.

What this does not do: sockets, names of machines, packets. A write arrives as it was written.
"""

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Protocol, cast

Factory = Callable[[], asyncio.BaseProtocol]

HIGH, LOW = 64 * 2**10, 16 * 2**10
"""Bytes waiting to be sent at which the protocol is told to pause, and to go on; as in asyncio."""

INSTANT = 1e-6
"""Seconds that are not worth a timer; a clock that goes by ticks may never reach less."""

EPHEMERAL = 49152
"""Ports from here on are given to those who dial."""


@dataclass(frozen=True)
class Passage:
    """What it takes to cross a wire.

    delay      seconds that the first byte is under way
    bandwidth  bytes/s; while something is sent, what comes after it waits
    jitter     seconds by which the delay may grow, drawn anew for every write; writes never
               overtake each other
    """

    delay: float = 0.0
    bandwidth: float = float("inf")
    jitter: float = 0.0


class Wire:
    """One direction of a connection."""

    def __init__(self, terms: Passage, chance: Random) -> None:
        self.terms = terms
        self.whole = True
        """Set it to False, and nothing arrives any more, nor is anybody told."""
        self._chance = chance
        self._free = 0.0  # loop time at which all that was given to it has left
        self._latest = 0.0  # loop time at which the last of it arrives

    def send(self, now: float, size: int) -> tuple[float, float]:
        """Loop times at which `size` bytes, given to it now, have left and have arrived."""
        terms = self.terms
        self._free = max(now, self._free) + size / terms.bandwidth
        late = terms.jitter * self._chance.random() if terms.jitter else 0.0
        self._latest = max(self._latest, self._free + terms.delay + late)
        return self._free, self._latest


class Busy(Protocol):
    """Who owns an end of a connection may be busy until some moment of the loop's clock."""

    free: float


class MemoryTransport(asyncio.Transport):
    """One end of a connection. While its `owner` is busy, nothing arrives or leaves here."""

    def __init__(self, wire: Wire, peername: tuple[str, int], sockname: tuple[str, int]) -> None:
        super().__init__({"peername": peername, "sockname": sockname})
        self.wire = wire
        self.peer: MemoryTransport | None = None
        self.owner: Busy | None = None
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol | None = None
        self._arrived: deque[bytes] = deque()  # not given to the protocol yet; b"" is the end
        self._due: deque[bytes] = deque()  # on its way here
        self._leaving: deque[tuple[float, int]] = deque()  # when it will have left, and its bytes
        self._waiting = 0  # bytes of these
        self._reading, self._paused = True, False
        self._high, self._low = HIGH, LOW
        self._ended = False  # we shall not write any more
        self._closing = False
        self._over = False  # the protocol has been told of the end, or will be at once

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """The connection stands."""
        self._protocol = cast(asyncio.Protocol, protocol)
        protocol.connection_made(self)
        self._read()

    # --- writing -----------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._ended or self._closing:
            return
        if data:
            self._send(bytes(data))

    def _send(self, data: bytes) -> None:
        now = self._loop.time()
        left, arrives = self.wire.send(max(now, self.owner.free) if self.owner else now, len(data))
        self._leaving.append((left, len(data)))
        self._waiting += len(data)
        assert self.peer is not None
        self.peer._due.append(data)
        self._loop.call_at(arrives, self.peer._arrive)
        if self._protocol is None or self._paused or self._waiting <= self._high:
            return
        if self.get_write_buffer_size() > self._high:
            self._paused = True
            self._protocol.pause_writing()
            self._loop.call_at(left, self._resume, left)

    def _resume(self, moment: float) -> None:
        if self._over or self._protocol is None:
            return
        if self._unsent(moment) > self._low:
            left = self._leaving[-1][0]
            self._loop.call_at(left, self._resume, left)
            return
        self._paused = False
        self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return self._unsent(self._loop.time())

    def _unsent(self, moment: float) -> int:
        leaving = self._leaving
        while leaving and leaving[0][0] <= moment:
            self._waiting -= leaving.popleft()[1]
        return self._waiting

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._ended and not self._closing:
            self._ended = True
            self._send(b"")

    # --- reading -----------------------------------------------------------------------------

    def _arrive(self) -> None:
        """What was sent first is there."""
        if self.owner is not None and self.owner.free > self._loop.time() + INSTANT:
            self._loop.call_at(self.owner.free, self._arrive)
            return
        data = self._due.popleft()
        assert self.peer is not None
        if self.peer.wire.whole:
            self._arrived.append(data)
            if self._protocol is not None:
                self._read()

    def _read(self) -> None:
        protocol = self._protocol
        assert protocol is not None
        while self._arrived and self._reading and not self._closing:
            data = self._arrived.popleft()
            try:
                if data:
                    protocol.data_received(data)
                elif not protocol.eof_received():
                    self.close()
            except Exception as error:  # as asyncio does: the protocol is broken
                context = {"message": "a protocol failed", "exception": error, "transport": self}
                self._loop.call_exception_handler(context)
                self._finish(error)

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._read)

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    # --- the end -----------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._finish(None)

    def abort(self) -> None:
        """What was written still arrives, as if a kernel had taken it."""
        self._finish(None)

    def reset(self) -> None:
        """Break the connection at both ends."""
        for end in (self, self.peer):
            if end is not None:
                end._finish(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _finish(self, error: Exception | None) -> None:
        if self._over:
            return
        self.write_eof()
        self._closing = self._over = True
        self._loop.call_soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        if self._protocol is not None:
            self._protocol.connection_lost(error)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)


class MemoryServer:
    """Who listens at an address of a network; as much of an `asyncio.Server` as is asked for."""

    def __init__(
        self, network: "MemoryNetwork", factory: Factory, address: tuple[str, int]
    ) -> None:
        self._network, self._address, self.factory = network, address, factory
        self.sockets = (SimpleNamespace(getsockname=lambda: address),)

    def close(self) -> None:
        """Connections that stand go on."""
        self._network.forget(self._address, self)


class MemoryNetwork:
    """Addresses at which somebody listens, and the connections between them.

    Every wire has the same terms and a source of chance of its own, made from `seed`.
    """

    def __init__(self, terms: Passage = Passage(), seed: int = 0) -> None:
        self.terms, self._seed = terms, seed
        self.ends: list[MemoryTransport] = []
        """Of all connections ever made: first the end that dialled, then the other one."""
        self._servers: dict[tuple[str, int], MemoryServer] = {}
        self._wires = 0

    def serve(self, factory: Factory, host: str, port: int) -> MemoryServer:
        """Listen at an address. Raises OSError if somebody does."""
        address = (host, port)
        if address in self._servers:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._servers[address] = server = MemoryServer(self, factory, address)
        return server

    def listens(self, address: tuple[str, int], server: MemoryServer) -> bool:
        return self._servers.get(address) is server

    def forget(self, address: tuple[str, int], server: MemoryServer) -> None:
        if self.listens(address, server):
            del self._servers[address]

    async def connect(
        self, factory: Factory, host: str, port: int
    ) -> tuple[MemoryTransport, asyncio.BaseProtocol]:
        """Dial an address: there and back once. Raises OSError if nobody listens there then."""
        await asyncio.sleep(self.terms.delay)
        server = self._servers.get((host, port))
        if server is None:
            await asyncio.sleep(self.terms.delay)
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        near, far = self._pair((host, port))
        far.begin(server.factory())
        try:
            await asyncio.sleep(self.terms.delay)
        except asyncio.CancelledError:
            far.abort()
            raise
        protocol = factory()
        near.begin(protocol)
        return near, protocol

    def _pair(self, there: tuple[str, int]) -> tuple[MemoryTransport, MemoryTransport]:
        here = (there[0], EPHEMERAL + len(self.ends) // 2)
        near = MemoryTransport(self._wire(), there, here)
        far = MemoryTransport(self._wire(), here, there)
        near.peer, far.peer = far, near
        self.ends += [near, far]
        return near, far

    def _wire(self) -> Wire:
        self._wires += 1
        return Wire(self.terms, Random(f"{self._seed}/{self._wires}"))
