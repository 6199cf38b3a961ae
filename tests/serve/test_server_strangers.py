"""Strangers at the port of the server: what is no HTTP, and those who only come to stay."""

import asyncio
import json
import os

import pytest
from loopback import run, until
from served import served
from sockets import ask, listening_to, post
from strangers import HELLO, asked, idle

from gardener.net.address import Address
from gardener.serve import connection

CHUNKED = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
STRANGERS = {
    "a stage whose --peer is the server": (HELLO, "invalid_http"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "invalid_http"),
    "noise": (bytes(range(128, 192)) + b"\r\n\r\n", "invalid_http"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "unknown_path"),
    "a length below 0": (b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "invalid_http"),
    "a chunk without a length": (CHUNKED + b"z\r\n", "invalid_http"),
}


@pytest.mark.parametrize(("sent", "code"), STRANGERS.values(), ids=STRANGERS.keys())
def test_what_is_no_http_is_told_so(sent: bytes, code: str) -> None:
    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            asking = asyncio.create_task(ask(port, post(max_tokens=8)))
            head, _, body = (await asked(Address("127.0.0.1", port), sent + b"\r\n\r\n")).partition(
                b"\r\n\r\n"
            )
            assert head.startswith(b"HTTP/1.1 4")
            first, _ = json.JSONDecoder().raw_decode(body.decode())
            assert first["error"]["code"] == code
            assert b" 200 " in await asking

    run(scenario)


def test_who_asks_for_the_head_alone_gets_no_body_with_a_refusal() -> None:
    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            head = CHUNKED.replace(b"POST", b"HEAD") + b"g\r\n"
            answer = await asked(Address("127.0.0.1", port), head)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.endswith(b"\r\n\r\n")
            assert b" 200 " in await ask(port, post(max_tokens=8))

    run(scenario)


def test_who_waits_to_go_on_and_does_not_is_only_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            waits = CHUNKED.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n") + b"g\r\n"
            answer = await asked(Address("127.0.0.1", port), waits)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b" 200 " in await ask(port, post(max_tokens=8))

    run(scenario)
    assert "Traceback" not in caplog.text


def test_a_thousand_idle_connections_leave_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beyond `--connections` are closed, the others when they have said nothing for a while;
    who has a connection is answered all the time."""
    monkeypatch.setattr(connection, "HEAD", 0.5)
    monkeypatch.setattr(connection, "LAST", 0.1)

    async def scenario() -> None:
        async with served(connections=64) as made, listening_to(made) as port:
            before = len(os.listdir("/dev/fd"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            whole = post(max_tokens=8)
            place = Address("127.0.0.1", port)
            with idle(place):
                writer.write(whole)
                assert b" 200 " in await reader.read()
                writer.close()

                for _ in range(200):  # until some were let go of
                    if b" 200 " in await asked(place, whole):
                        break
                    await asyncio.sleep(0.05)
                else:
                    raise AssertionError("there was never room")
            await until(lambda: len(os.listdir("/dev/fd")) <= before + 1)

    run(scenario)
