"""The HTTP server itself, on a real socket: TLS, what is no HTTP, and connections that end."""

import asyncio
import ssl
from pathlib import Path

import certificate
import pytest
from loopback import run, until
from served import served
from sockets import ask, listening_to, post

from gardener.errors import UserError
from gardener.serve.server import http_server, listening
from gardener.serve.settings import ServeSettings

GET = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def test_over_tls(tmp_path: Path) -> None:
    cert, key = certificate.written(tmp_path)

    async def scenario() -> None:
        tls = ssl.create_default_context(cafile=str(cert))
        async with served(tls_cert=cert, tls_key=key) as made, listening_to(made) as port:
            assert (await ask(port, GET, tls)).startswith(b"HTTP/1.1 200 OK")

    run(scenario)


@pytest.mark.parametrize("swapped", [True, False])
def test_a_certificate_that_is_none_is_said_before_anything_starts(
    swapped: bool, tmp_path: Path
) -> None:
    cert, key = certificate.written(tmp_path)
    wrong = ServeSettings(tls_cert=key if swapped else tmp_path / "no.pem", tls_key=cert)

    async def scenario() -> None:
        async with served() as made:
            with pytest.raises(UserError, match=r"--tls-cert .* cannot be used"):
                http_server(wrong, made.house)

    run(scenario)


def test_what_is_no_http_gets_an_error_in_the_envelope() -> None:
    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            head, _, body = (await ask(port, b"\x16\x03\x01 what\r\n\r\n")).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400")
            assert b"application/json" in head
            assert b'"code":"invalid_http"' in body

    run(scenario)


@pytest.mark.parametrize("stream", [True, False])
def test_a_connection_that_breaks_frees_the_slots(stream: bool) -> None:
    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            release = made.hold()
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(stream=stream, max_tokens=200))
            await until(lambda: made.ring.holder.admission.running)
            writer.transport.abort()
            await until(lambda: not made.ring.holder.admission.sessions)
            release()
            assert await made.freed()

    run(scenario)


def test_a_stream_ends_and_so_does_its_connection() -> None:
    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            answer = await ask(port, post(stream=True, max_tokens=3))
            assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            assert b"transfer-encoding: chunked" in answer.lower()

    run(scenario)


def test_a_client_that_knows_no_chunks_gets_none() -> None:
    async def scenario() -> None:
        async with served() as made, listening_to(made) as port:
            old = post(stream=True, max_tokens=3).replace(b"HTTP/1.1", b"HTTP/1.0")
            head, _, body = (await ask(port, old)).partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head.lower()
            assert body.startswith(b"data: {")
            assert body.endswith(b"\n\ndata: [DONE]\n\n")

    run(scenario)


def test_a_port_that_is_taken_is_said() -> None:
    with listening("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}"):
            listening("127.0.0.1", port)
