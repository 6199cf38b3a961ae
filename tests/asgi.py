"""Asks an ASGI application as a server would, message by message, and goes away when told to."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message


class Call:
    """A request under way."""

    def __init__(
        self,
        app: ASGIApp,
        method: str,
        path: str,
        body: bytes | dict[str, Any] = b"",
        headers: dict[str, str] | None = None,
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"host": "localhost", "content-type": "application/json", **(headers or {})}
        self.status = 0
        self.headers = Headers()
        self.data = b""
        self.complete = False
        self._changed = asyncio.Event()
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._inbox.put_nowait({"type": "http.request", "body": data, "more_body": False})
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50000),
        }
        self.task = asyncio.ensure_future(app(scope, self._inbox.get, self._send))

    def leave(self) -> None:
        """As a client that closes its connection."""
        self._inbox.put_nowait({"type": "http.disconnect"})

    async def until(self, text: str) -> None:
        """Wait until the body has this."""
        async with asyncio.timeout(20):
            while text.encode() not in self.data:
                assert not self.task.done(), self.data
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> "Call":
        """Wait until all is sent."""
        async with asyncio.timeout(20):
            await self.task
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def error(self) -> dict[str, Any]:
        """The error in its envelope."""
        (error,) = self.json.values()
        assert set(error) >= {"message", "type", "param", "code"}
        found: dict[str, Any] = error
        return found

    @property
    def events(self) -> list[Any]:
        """Of a stream: what each event holds, without comments; `[DONE]` as text."""
        blocks = [block for block in self.data.decode().split("\n\n") if block[:1] not in ("", ":")]
        assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
        texts = [block.removeprefix("data: ") for block in blocks]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = Headers(raw=list(message["headers"]))
        else:
            self.data += message.get("body", b"")
            self.complete = not message.get("more_body", False)
        self._changed.set()


@asynccontextmanager
async def calling(app: ASGIApp, *request: Any, **more: Any) -> AsyncIterator[Call]:
    """A request that is ended with the context."""
    call = Call(app, *request, **more)
    try:
        yield call
    finally:
        call.task.cancel()
        await asyncio.gather(call.task, return_exceptions=True)
