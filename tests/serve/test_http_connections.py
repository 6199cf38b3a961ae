"""How long a connection may take, how many there may be, and what those get that are sent away."""

import asyncio
import json
import socket
from typing import Any

import pytest
from loopback import run, slow, until
from served import served
from sockets import ask, listening_to, post

from gardener.serve import connection as connection_module
from gardener.serve.server import most_connections

HALF = b"GET /health HTTP/1.1\r\nhost: local"
WHOLE = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


def error(answer: bytes) -> tuple[int, dict[str, Any], bytes]:
    """Status, the error in its envelope, and the head."""
    head, _, body = answer.partition(b"\r\n\r\n")
    found: dict[str, Any] = json.loads(body)["error"]
    return int(head.split()[1]), found, head.lower()


@pytest.mark.parametrize(
    ("begun", "what"),
    [(HALF, "headers"), (post(max_tokens=2)[:-1], "body"), (WHOLE + HALF, "headers")],
)
def test_a_request_that_does_not_come_to_its_end(
    begun: bytes, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "HEAD", 0.1)
    monkeypatch.setattr(connection_module, "BODY", 0.1)

    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            answer = await ask(port, begun)
            before, _, last = answer.rpartition(b"HTTP/1.1")
            assert (b"200 OK" in before) == begun.startswith(WHOLE)
            status, said, head = error(b"HTTP/1.1" + last)
            assert (status, said["code"]) == (408, "request_timeout")
            assert f"the {what} of the request" in said["message"]
            assert b"x-request-id: req-" in head
            assert b"connection: close" in head
            assert not made.house.answers

    run(scenario)


def test_who_asks_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD", 0.05)

    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            assert await ask(port, b"") == b""

    run(scenario)


def test_more_connections_than_there_may_be_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MOST_REFUSED", 1)

    async def scenario() -> None:
        async with served(connections=2) as made, listening_to(made) as port:
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            for reader, writer in held:
                writer.write(WHOLE)
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            status, said, head = error(await ask(port, post(prompt=["w1"] * 20_000)))
            assert (status, said["code"]) == (503, "too_many_connections")
            assert b"retry-after: " in head
            held.append(await asyncio.open_connection("127.0.0.1", port))  # it waits to be told
            assert await closed(port)
            for reader, writer in held:
                writer.close()
                await reader.read()
            once = WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
            assert (await ask(port, once)).startswith(b"HTTP/1.1 200")

    run(scenario)


async def closed(port: int) -> bool:
    """Whether a connection is closed though it sends nothing; it is not told why."""
    try:
        return await ask(port, b"") == b""
    except ConnectionResetError:
        return True


def test_who_takes_nothing_loses_the_connection_and_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "TAKEN", 0.05)

    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            made.house.model = "m" * 2**19  # each chunk names it
            made.nodes.seats[1].stage.trouble = slow(0.01)
            body = post(model=made.house.model, stream=True, max_tokens=200, policy="plain")
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(sock, ("127.0.0.1", port))
                await loop.sock_sendall(sock, body)
                await until(lambda: made.house.answers)
                await until(lambda: not made.house.answers)
                assert await made.freed()
                session = made.ring.holder.session
                assert session is not None
                assert session.finish_reason == "abandoned"

    run(scenario)


def test_headers_that_are_too_long_are_told_so() -> None:
    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            status, said, head = error(
                await ask(port, b"GET / HTTP/1.1\r\nx: " + b"a" * 2**20 + b"\r\n\r\n")
            )
            assert (status, said["code"]) == (431, "headers_too_large")
            assert b"x-request-id: req-" in head

    run(scenario)


def test_an_upgrade_is_answered_without_one(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            more = b"\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n"
            assert b" 200 " in await ask(port, WHOLE.replace(b"\r\n\r\n", more))

    run(scenario)
    assert "uvicorn" not in caplog.text


def test_so_many_connections_as_files_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"soft": 1024, "hard": 4096}
    monkeypatch.setattr("resource.getrlimit", lambda _: (limits["soft"], limits["hard"]))
    monkeypatch.setattr("resource.setrlimit", lambda _, given: limits.update(soft=given[0]))
    said: list[str] = []
    assert most_connections(256, said.append) == 256
    assert limits["soft"] == 1024
    assert most_connections(2000, said.append) == 2000
    assert limits["soft"] == 2512
    assert not said
    assert most_connections(5000, said.append) == 3584
    assert said == ["3584 connections are taken, not 5000: this process may open 4096 files"]
