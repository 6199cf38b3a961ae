"""Who is at a port by mistake, and what such a peer is told in its own words.

Whatever else a stranger sends is no frame; these are told apart so that people find their mistake.
"""

from gardener.errors import RemoteError

_REQUESTS = frozenset(
    (*(b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"CONN", b"OPTI", b"TRAC", b"PATC"), b"PRI ")
)
"""How requests begin; the last one is that of HTTP/2."""

_ANSWERS = b"HTTP"


class SpeaksHTTP(RemoteError):
    """The peer is a client that expects an answer in HTTP."""

    @property
    def answer(self) -> bytes:
        """What it can read."""
        body = f"{self}\n".encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        return head.encode() + body


def too_long(head: bytes, limit: int) -> RemoteError:
    """What is wrong with a frame whose length, these 4 bytes, is over the limit."""
    if head in _REQUESTS:
        return SpeaksHTTP(
            "this is a port of the ring, which does not speak HTTP: the port of gardener serve "
            "(--port) is another one"
        )
    if head == _ANSWERS:
        return RemoteError(
            "an HTTP server answers there, not a stage: give the port where the stage listens "
            "(its --listen)"
        )
    return RemoteError(f"a frame of {int.from_bytes(head, 'big')} bytes, the limit is {limit}")
