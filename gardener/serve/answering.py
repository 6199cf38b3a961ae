"""An answer on its way to a client, streamed or whole.

A client that goes away ends its answer at once, while it waits for its turn as well. One that
stays is told something every few seconds, so that nothing between takes the connection for dead.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gardener.errors import GardenerError
from gardener.holder.session import Piece
from gardener.serve.asked import Asked
from gardener.serve.errors import ApiError, told
from gardener.serve.house import House

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": still under way\n\n"
"""A comment, which clients skip."""

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # or nginx would collect it
}


class Form(Protocol):
    """How an answer is written. What it gives are JSON objects, as bytes."""

    def begin(self) -> Iterable[bytes]:
        """Chunks before the text."""

    def piece(self, piece: Piece) -> Iterable[bytes]:
        """Chunks with this piece."""

    def end(self, asked: Asked) -> Iterable[bytes]:
        """Chunks after the text: whatever was held back, the finish reason, usage."""

    def failed(self, asked: Asked) -> Iterable[bytes]:
        """The same for an answer that broke: its finish reason is `error`."""

    def whole(self, asked: Asked) -> bytes:
        """All of it in one object. Pieces were given to `piece` before."""

    @property
    def text(self) -> str:
        """All text so far."""


def event(data: bytes) -> bytes:
    """A server-sent event."""
    return b"data: " + data + b"\n\n"


async def whole(asked: Asked, form: Form, house: House, receive: Receive) -> Response:
    """One object. Raises ApiError if the answer broke."""
    async with _attended(asked, house, receive) as left:
        try:
            async for piece in asked:
                form.piece(piece)
        except GardenerError as error:
            raise told(error, partial=form.text) from error
        if left.done():
            return Response(status_code=499)  # nobody reads it
        return Response(form.whole(asked), media_type="application/json")


class Stream(Response):
    """Server-sent events, as an ASGI application: nothing stands between a piece and the socket."""

    def __init__(self, asked: Asked, form: Form, house: House) -> None:
        super().__init__(headers=STREAM_HEADERS)
        del self.headers["content-length"]
        self._asked, self._form, self._house = asked, form, house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(*events: bytes) -> None:
            body = b"".join(events)
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})

        async with _attended(self._asked, self._house, receive) as left:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            await write(*map(event, self._form.begin()))
            async for events in self._events(left):
                await write(*events)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self, left: "asyncio.Task[None]") -> AsyncIterator[Iterable[bytes]]:
        """What is written after the beginning."""
        asked, form, pause = self._asked, self._form, self._house.settings.keep_alive
        try:
            while True:
                try:
                    async with asyncio.timeout(pause):
                        piece = await anext(asked)
                except TimeoutError:
                    yield (KEEP_ALIVE,)
                    continue
                yield map(event, form.piece(piece))
        except StopAsyncIteration:
            if not left.done():
                yield map(event, form.end(asked))
                yield (DONE,)
        except GardenerError as error:
            yield map(event, form.failed(asked))
            yield (event(encoded(told(error))),)


def encoded(error: ApiError) -> bytes:
    """An error as an event has it."""
    data: Any = error.envelope()
    return msgspec.json.encode(data)


@asynccontextmanager
async def _attended(
    asked: Asked, house: House, receive: Receive
) -> AsyncIterator["asyncio.Task[None]"]:
    """Whatever happens, the answer ends with this context, or as soon as the client goes away:
    then the task that this gives is done."""

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        asked.close()

    left = asyncio.create_task(leave())
    task = asyncio.current_task()
    assert task is not None
    house.answers[asked] = task
    try:
        yield left
    finally:
        del house.answers[asked]
        left.cancel()
        asked.close()
