"""The server's application on a real socket, and who asks it byte by byte."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from served import MODEL, PROMPT, Served

from gardener.serve.server import http_server, listening


def post(**body: Any) -> bytes:
    """A completion."""
    text = json.dumps({"model": MODEL, "prompt": PROMPT, "temperature": 0, **body}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    return (
        f"{head}content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n".encode()
        + text
    )


@asynccontextmanager
async def listening_to(made: Served) -> AsyncIterator[int]:
    """Serve it; gives the port."""
    server = http_server(made.house.settings, made.house)
    sock = listening("127.0.0.1", 0)
    port: int = sock.getsockname()[1]
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield port
    finally:
        server.should_exit = True
        await serving


async def ask(port: int, request: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """All that comes back."""
    name = None if tls is None else "localhost"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    writer.write(request)
    found = await reader.read()
    writer.close()
    await writer.wait_closed()
    return found
