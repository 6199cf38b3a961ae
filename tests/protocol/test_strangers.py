"""Who is at a port by mistake is told so."""

import pytest

from gardener.protocol.connection import TIMES, Connection
from gardener.protocol.link_state import End
from gardener.protocol.messages import Card, Ping
from gardener.protocol.wire import encode

CARD = Card(1, "oak", "0.1", 0, 1, 2, 4, "m", "float32", "none", 0)
HELLO = b"POST /v1/chat/completions HTTP/1.1\r\nhost: here\r\n\r\n{}"


def link(end: End) -> Connection:
    made = Connection(end, CARD, lambda peer: None, TIMES)
    made.begin("10.0.0.9:50000", 0.0)
    made.outgoing()
    return made


@pytest.mark.parametrize("request_line", [HELLO, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n"])
def test_a_client_of_http_gets_an_answer_that_it_can_read(request_line: bytes) -> None:
    here = link(End.DOWNSTREAM)
    assert list(here.receive(request_line, 0.0)) == []
    assert here.parting is not None
    said = str(here.parting.error)
    assert said.startswith("the peer at 10.0.0.9:50000 broke the protocol: this is a port of the")
    head, _, body = here.outgoing().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    length = int(head.partition(b"content-length: ")[2].split()[0])
    assert body[:length].startswith(b"this is a port of the ring, which does not speak HTTP")


def test_an_http_server_where_a_stage_should_be() -> None:
    here = link(End.UPSTREAM)
    assert list(here.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n", 0.0)) == []
    assert here.parting is not None
    assert "an HTTP server answers there, not a stage" in str(here.parting.error)


def test_an_open_link_is_never_answered_in_http() -> None:
    here = link(End.DOWNSTREAM)
    other = Connection(End.UPSTREAM, CARD, lambda peer: None, TIMES)
    other.begin("10.0.0.1:7000", 0.0)
    list(here.receive(other.outgoing() + encode(Ping(1)), 0.0))
    assert here.is_open
    here.outgoing()
    list(here.receive(HELLO, 0.0))
    assert b"HTTP/1.1" not in here.outgoing()
