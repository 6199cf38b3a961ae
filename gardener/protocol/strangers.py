"""Who else may be at the other end of a connection, by the first bytes that come from there."""

from dataclasses import dataclass

from gardener.protocol.messages import Bye

HEAD = 4
"""Bytes by which a stranger is told from a peer."""

_HTTP = (b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI ")
_TLS = (b"\x14\x03", b"\x15\x03", b"\x16\x03", b"\x17\x03")  # the records that TLS 1.x sends

WITHOUT = "this port does not speak TLS, its owner was started without --keys: start both with it"
WITH = "this port speaks TLS: start with --keys DIR, the files of `gardener keys init` for you"
OTHERWISE = Bye("this end of the connection is one of a ring of Gardener, and the other is not")
NOT_HTTP = (
    "Here a ring of Gardener talks to itself, not in HTTP. "
    "Ask the server instead: its address is what `gardener serve` prints.\n"
)


@dataclass(frozen=True)
class Stranger:
    """Somebody who does not talk as we do.

    said    what it does, with the way out: follows on its name
    bye     what it is told, since it may be a Gardener
    answer  what it is told instead, as bytes, if it is none
    """

    said: str
    bye: Bye = OTHERWISE
    answer: bytes = b""


def recognised(head: bytes, *, secured: bool, accepted: bool) -> Stranger | None:
    """Who begins with these bytes and is no peer of ours; None: who knows.

    secured: we speak TLS. accepted: it has dialled us, else we have dialled it.
    """
    if accepted and head.startswith(_HTTP):
        said = "speaks HTTP, and this is a port of the ring: the server's is what it should ask"
        return Stranger(said, answer=_http(NOT_HTTP))
    if not accepted and head.startswith(b"HTTP"):
        return Stranger("answers in HTTP, so it is no stage of a ring: correct the address")
    if secured:
        return _without_tls(head, accepted)
    if not head.startswith(_TLS):
        return None
    if accepted:
        said = "speaks TLS, it was started with --keys and we without: start both with --keys DIR"
        return Stranger(said, bye=Bye(WITHOUT))
    return Stranger("answers in TLS, and is no stage of a ring: correct the address")


def _without_tls(head: bytes, accepted: bool) -> Stranger:
    """We speak TLS, and these bytes are none."""
    if head[:1] != b"\0":  # with which every greeting begins: the length of a small frame
        return Stranger(f"does not speak TLS (it begins with {head[:HEAD].hex(' ')})")
    said = "does not speak TLS, it was started without --keys and we with: start both with it"
    return Stranger(said, bye=Bye(WITH)) if accepted else Stranger(said)


def _http(text: str) -> bytes:
    """A whole answer in HTTP that closes the connection."""
    lines = (
        "HTTP/1.1 400 Bad Request",
        "content-type: text/plain; charset=utf-8",
        f"content-length: {len(text.encode())}",
        "connection: close",
    )
    return "\r\n".join((*lines, "", text)).encode()
