"""Connections within one process: asyncio transports over wires with delay, bandwidth and jitter.

The code of real links (`dial`, `listen`, `Link`) runs over these unchanged, if the event loop makes
its connections in a `SimulatedNetwork` (see `simulate/loop.py`). Under a virtual clock times are
exact.

There are no sockets, no host names and no packets: a write arrives in one piece.
"""

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from random import Random
from types import MappingProxyType, SimpleNamespace
from typing import Protocol, cast

Factory = Callable[[], asyncio.BaseProtocol]

HIGH, LOW = 64 * 2**10, 16 * 2**10
"""Unsent bytes above which the protocol is told to pause, and below which to resume, as in
asyncio."""

INSTANT = 1e-6
"""Seconds that are too short for a timer: a clock that moves in ticks may never reach them."""

EPHEMERAL = 49152
"""The first port that is given to the end that dials."""


@dataclass(frozen=True)
class LinkConditions:
    """How fast one direction of a link is.

    delay      seconds until the first byte arrives
    bandwidth  bytes per second; a write waits until the one before it has left
    jitter     the most seconds that are added to the delay, drawn anew for every write; writes
               never overtake each other
    """

    delay: float = 0.0
    bandwidth: float = float("inf")
    jitter: float = 0.0


class Wire:
    """One direction of a connection."""

    def __init__(self, conditions: LinkConditions, chance: Random) -> None:
        self.conditions = conditions
        self.whole = True
        """Set this to False to cut the wire: nothing arrives any more, and neither end is told."""
        self._chance = chance
        self._free = 0.0  # loop time at which all that was given to it has left
        self._latest = 0.0  # loop time at which the last of it arrives

    def send(self, now: float, size: int) -> tuple[float, float]:
        """The loop times at which `size` bytes that are written now will have left, and arrived."""
        conditions = self.conditions
        self._free = max(now, self._free) + size / conditions.bandwidth
        late = conditions.jitter * self._chance.random() if conditions.jitter else 0.0
        self._latest = max(self._latest, self._free + conditions.delay + late)
        return self._free, self._latest

    def stall(self, until: float) -> None:
        """What is sent from now on arrives at this loop time at the earliest."""
        self._latest = max(self._latest, until)


class Busy(Protocol):
    """The owner of an end of a connection, who is busy until the loop time `free`."""

    free: float


class SimulatedTransport(asyncio.Transport):
    """One end of a connection. While its `owner` is busy, nothing arrives or leaves here."""

    def __init__(self, wire: Wire, peername: tuple[str, int], sockname: tuple[str, int]) -> None:
        super().__init__({"peername": peername, "sockname": sockname})
        self.wire = wire
        self.peer: SimulatedTransport | None = None
        self.owner: Busy | None = None
        self.context: Context | None = None  # in which its protocol is told; None: the caller's
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
        """Tell the protocol that the connection is made."""
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
        self._loop.call_at(arrives, self.peer._arrive, context=self.peer.context)
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
        """The write that was sent first has arrived."""
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
        self._loop.call_soon(self._lost, error, context=self.context)

    def _lost(self, error: Exception | None) -> None:
        if self._protocol is not None:
            self._protocol.connection_lost(error)

    @property
    def protocol(self) -> asyncio.BaseProtocol | None:
        """Which is told of it; None: the connection was never made."""
        return self._protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)


class SimulatedServer:
    """A listener at an address of the network, with the part of `asyncio.Server` that is used."""

    def __init__(
        self, network: "SimulatedNetwork", factory: Factory, address: tuple[str, int]
    ) -> None:
        self._network, self._address, self.factory = network, address, factory
        self.sockets = (SimpleNamespace(getsockname=lambda: address),)

    @property
    def is_open(self) -> bool:
        """It still listens."""
        return self._network.listens(self._address, self)

    def close(self) -> None:
        """Stop listening. Connections that were made go on."""
        self._network.forget(self._address, self)


class SimulatedNetwork:
    """Addresses at which somebody listens, and the connections between them.

    All wires have the same conditions, but for connections to the ports that are named. Each has
    random numbers of its own, which follow from `seed`."""

    def __init__(
        self,
        conditions: LinkConditions = LinkConditions(),
        seed: int = 0,
        named: Mapping[int, LinkConditions] = MappingProxyType({}),
    ) -> None:
        """`named`: the conditions of connections to a port, in both directions."""
        self.conditions, self._seed, self._named = conditions, seed, named
        self.ends: list[SimulatedTransport] = []
        """Both ends of all connections ever made: first the one that dialled, then the other."""
        self._servers: dict[tuple[str, int], SimulatedServer] = {}
        self._wires = 0

    def serve(self, factory: Factory, host: str, port: int) -> SimulatedServer:
        """Listen at an address. Raises OSError if it is taken."""
        address = (host, port)
        if address in self._servers:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._servers[address] = server = SimulatedServer(self, factory, address)
        return server

    def listens(self, address: tuple[str, int], server: SimulatedServer) -> bool:
        return self._servers.get(address) is server

    def forget(self, address: tuple[str, int], server: SimulatedServer) -> None:
        if self.listens(address, server):
            del self._servers[address]

    async def connect(
        self, factory: Factory, host: str, port: int
    ) -> tuple[SimulatedTransport, asyncio.BaseProtocol]:
        """Dial an address, which takes a round trip. Raises OSError if nobody listens there."""
        delay = self._conditions(port).delay
        await asyncio.sleep(delay)
        server = self._servers.get((host, port))
        if server is None:
            await asyncio.sleep(delay)
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        near, far = self._pair((host, port))
        self._accept(server, far)
        try:
            await asyncio.sleep(delay)
        except asyncio.CancelledError:
            far.abort()
            raise
        protocol = factory()
        near.begin(protocol)
        return near, protocol

    def _conditions(self, port: int) -> LinkConditions:
        return self._named.get(port, self.conditions)

    def _accept(self, server: SimulatedServer, far: SimulatedTransport) -> None:
        """Hand the end of a new connection to who listens."""
        far.begin(server.factory())

    def _pair(self, there: tuple[str, int]) -> tuple[SimulatedTransport, SimulatedTransport]:
        here = self._ephemeral(there)
        near = SimulatedTransport(self._wire(there[1]), there, here)
        far = SimulatedTransport(self._wire(there[1]), here, there)
        return self._joined(near, far)

    def _ephemeral(self, there: tuple[str, int]) -> tuple[str, int]:
        """An address for the end that dials."""
        return there[0], EPHEMERAL + len(self.ends) // 2

    def _joined(
        self, near: SimulatedTransport, far: SimulatedTransport
    ) -> tuple[SimulatedTransport, SimulatedTransport]:
        near.peer, far.peer = far, near
        self.ends += [near, far]
        return near, far

    def _wire(self, port: int) -> Wire:
        self._wires += 1
        return Wire(self._conditions(port), Random(f"{self._seed}/{self._wires}"))
