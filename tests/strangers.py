"""Who comes to a port and has no business there, on real sockets."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator

from gardener.net.address import Address
from gardener.protocol import messages as m
from gardener.protocol.wire import LENGTH, Decoder, encode

CARD = m.Card(1, "stranger", "0.1", 0, 1, 2, 1, "m", "float32", "none", 0)
HELLO = encode(m.Hello(m.PROTOCOL, CARD, bytes(16)))
IDLE = 1000
"""Connections that say nothing."""


def lying(message: m.Message, more: int) -> bytes:
    """A frame whose length is wrong by so much."""
    frame = encode(message)
    length = int.from_bytes(frame[:LENGTH], "big") + more
    return length.to_bytes(LENGTH, "big") + frame[LENGTH:]


def counts_that_lie() -> bytes:
    """A segment of 3 ids with 2 tokens."""
    sound = encode(m.Segment(9, 0, (0, 1, 2), (-1, 0, 1), (0, 1, 2), (7, 7, 7), None, ()))
    rows = b"\x93\x07\x07\x07"
    assert sound.count(rows) == 1
    changed = sound.replace(rows, b"\x92\x07\x07")
    return (len(changed) - LENGTH).to_bytes(LENGTH, "big") + changed[LENGTH:]


STRANGERS = {
    "garbage": (b"\x00\x00\x00\x08" + bytes(range(120, 128)), "has bytes after its message"),
    "length of 4 GiB": (b"\xff\xff\xff\xff", "a frame of 4294967295 bytes, the limit is 16384"),
    "length of nothing": (bytes(4), "a frame of length zero"),
    "HTTP": (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP"),
    "another version": (
        encode(m.Hello(m.PROTOCOL + 1, CARD, bytes(16))),
        "install the same version of gardener on both machines",
    ),
    "a length that is too short": (lying(m.Hello(m.PROTOCOL, CARD, bytes(16)), -3), "not msgpack"),
    "work before the greeting": (counts_that_lie(), "3 ids, 3 parents, 3 positions and 2 tokens"),
}
"""What they send, and what is said of it."""


async def asked(place: Address, data: bytes) -> bytes:
    """All that comes back until the port has closed the connection."""
    reader, writer = await asyncio.open_connection(*place)
    writer.write(data)
    found = b""
    with contextlib.suppress(ConnectionResetError):
        found = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionResetError):
        await writer.wait_closed()
    return found


def reason(answer: bytes) -> str:
    """Why the port closed: in a Bye, or in HTTP for who speaks that."""
    if answer.startswith(b"HTTP/1.1 400 "):
        return answer.partition(b"\r\n\r\n")[2].partition(b"\n")[0].decode()
    (*_, bye) = Decoder().feed(answer)
    assert isinstance(bye, m.Bye)
    return bye.why


@contextlib.contextmanager
def idle(place: Address, count: int = IDLE) -> Iterator[list[socket.socket]]:
    """So many connections that say nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * count + 512  # both ends are in this process
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        count = min(count, (most - 512) // 2)
    try:
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(socket.socket()) for _ in range(count)]
            for sock in socks:
                sock.setblocking(False)
                sock.connect_ex(place)
            yield socks
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
