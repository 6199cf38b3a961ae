"""A link that can be broken: relays TCP connections, and drops, resets, stalls or delays them.

The one who dials is given the cable's port, and the cable dials the one who listens.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import cast

LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s: closing such a socket sends a reset."""


class End(asyncio.Protocol):
    """One of the two connections of a relayed one. `other` is the one that its bytes go to."""

    def __init__(self, cable: "Cable", other: "End | None" = None) -> None:
        self.transport: asyncio.Transport | None = None
        self.other = other
        self._cable = cable
        self._full = False  # the other end's peer reads too slowly
        self._early: list[bytes] = []  # before the other end was connected
        self._held: deque[bytes | None] = deque()  # delayed; None: the end of the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._cable.ends.add(self)
        if self.other is None:  # somebody dialled us
            self.other = End(self._cable, self)
            self._cable.connect(self)
        else:
            self.other.connected()
        # Later: uvloop begins to read after this, whatever was said here.
        asyncio.get_running_loop().call_soon(self.flow)

    def connected(self) -> None:
        """The other end is: what came before is passed on."""
        early, self._early = self._early, []
        for data in early:
            self._later(data)
        self.flow()

    def flow(self) -> None:
        """Read on, or not: as the state of the cable and of the other end wants it."""
        if self.transport is None or self.transport.is_closing():
            return
        if self._full or self._cable.stalled or self.other is None or self.other.transport is None:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self._early.append(data)
        else:
            self._later(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._cable.ends.discard(self)
        if error is None:
            self._later(None)
        elif self.other is not None:
            self.other.abort()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other._full = True
            self.other.flow()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other._full = False
            self.other.flow()

    def close(self) -> None:
        """With all that was written."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """With a reset: whoever is there is told that the connection is gone."""
        if self.transport is None:
            return
        with contextlib.suppress(OSError):
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self.transport.abort()

    def _later(self, data: bytes | None) -> None:
        self._held.append(data)
        if not self._cable.delay and len(self._held) == 1:
            self._pass()
        else:  # in the order in which they came, whatever the delay of each
            asyncio.get_running_loop().call_later(self._cable.delay, self._pass)

    def _pass(self) -> None:
        data = self._held.popleft()
        if self.other is None or self.other.transport is None:
            return
        if data is None:
            self.other.close()
        elif not self.other.transport.is_closing():
            self.other.transport.write(data)


class Cable:
    """Relays whoever dials `port` to `there`, a port of this machine, once it was started."""

    def __init__(self, port: int, there: int) -> None:
        self.port, self.there = port, there
        self.ends: set[End] = set()
        self.stalled = False
        self.delay = 0.0  # seconds that bytes take longer
        self._server: asyncio.Server | None = None
        self._dials: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: End(self), "127.0.0.1", self.port)

    async def close(self) -> None:
        """Drop all connections and listen no longer."""
        self.drop()
        for task in self._dials:
            task.cancel()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def connect(self, end: End) -> None:
        """Dial whom `end`, which dialled us, wants to reach. It is reset if nobody listens."""
        task = asyncio.create_task(self._connect(end))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _connect(self, end: End) -> None:
        other = end.other
        assert other is not None
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: other, "127.0.0.1", self.there)
        except OSError:
            end.abort()

    def drop(self) -> None:
        """End all connections, as a process does that closes its sockets."""
        for end in list(self.ends):
            end.close()

    def reset(self) -> None:
        """Reset all connections: both ends are told by an error."""
        for end in list(self.ends):
            end.abort()

    async def stall(self, seconds: float) -> None:
        """Let nothing through for so long, and lose nothing: what was sent comes afterwards, if
        the connection is still wanted."""
        self._stalls(True)
        await asyncio.sleep(seconds)
        self._stalls(False)

    async def slow(self, delay: float, seconds: float) -> None:
        """For so many seconds, let everything come `delay` seconds later."""
        self.delay = delay
        await asyncio.sleep(seconds)
        self.delay = 0.0

    def _stalls(self, stalled: bool) -> None:
        self.stalled = stalled
        for end in list(self.ends):
            end.flow()
