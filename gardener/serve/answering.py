"""An answer on its way to a client, streamed or whole.

A client that goes away ends its answer at once, while it waits for its turn as well. One that
stays is told something every few seconds, so that nothing between takes the connection for dead.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gardener.errors import GardenerError
from gardener.holder.piece import Piece
from gardener.metrics.requests import RequestTimer
from gardener.runtime import clock
from gardener.runtime.wording import printable
from gardener.serve.asked import COMPLETE, Asked
from gardener.serve.errors import SHUTTING_DOWN, Ended, told
from gardener.serve.house import House
from gardener.serve.logged import visit
from gardener.serve.scope import write_of

log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
STILL = "still under way"
"""What a comment says where there is nothing else to say. Clients skip comments."""

LOOK = 1.0
"""Seconds between two looks at whether the ring is broken."""

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


def comment(sentence: str) -> bytes:
    """A comment among server-sent events."""
    return f": {printable(sentence)}\n\n".encode()


async def whole(asked: Asked, form: Form, house: House, receive: Receive) -> Response:
    """One object. Raises ApiError if the answer broke."""
    async with _attended(asked, house, receive) as (left, timer):
        try:
            async for piece in asked:
                timer.tokens(len(piece.tokens))
                form.piece(piece)
            if not left.done():
                _check_complete(asked)
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
        async with _attended(self._asked, self._house, receive) as (left, timer):
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            quiet = asyncio.create_task(self._comment(timer, send))
            write = write_of(scope)
            try:
                async for data in self._events(left, timer):
                    if not write(data):
                        await send(_part(data))
            finally:
                quiet.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(
        self, left: "asyncio.Task[None]", timer: RequestTimer
    ) -> AsyncIterator[bytes]:
        """All that is written; one that broke ends without `[DONE]`."""
        asked, form = self._asked, self._form
        try:
            if begin := b"".join(map(event, form.begin())):
                yield begin
            async for piece in asked:
                timer.tokens(len(piece.tokens))
                if data := b"".join(map(event, form.piece(piece))):
                    yield data
            if not left.done():
                _check_complete(asked)
                yield b"".join((*map(event, form.end(asked)), DONE))
        except Exception as error:
            if not isinstance(error, GardenerError):
                log.exception("an answer could not be written")
            failure = event(told(error).body())
            yield b"".join((*map(event, form.failed(asked)), failure))

    async def _comment(self, timer: RequestTimer, send: Send) -> None:
        """Say that the answer is still under way whenever there was no token for a while, and at
        once what the ring waits for if it broke: beside the pieces, so that none has to wait for a
        piece with a timer of its own."""
        pause = self._house.settings.keep_alive
        said, told = clock.now(), ""
        while True:
            condition = self._house.condition
            rest = max(said, timer.last or said) + pause - clock.now()
            if rest > 0 and condition in ("", told):
                await asyncio.sleep(min(rest, LOOK))
            else:
                await send(_part(comment(condition or STILL)))
                said, told = clock.now(), condition


def _part(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}


def _check_complete(asked: Asked) -> None:
    """Raises Ended for an answer that somebody has closed before its end."""
    if asked.finish_reason not in COMPLETE:
        raise Ended(SHUTTING_DOWN)


@asynccontextmanager
async def _attended(
    asked: Asked, house: House, receive: Receive
) -> AsyncIterator[tuple["asyncio.Task[None]", RequestTimer]]:
    """Whatever happens, the answer ends with this context, or as soon as the client goes away:
    then the task that this gives is done. The timer is to be told of its tokens."""

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        asked.close()

    left = asyncio.create_task(leave())
    task = asyncio.current_task()
    assert task is not None
    house.answers[asked] = task
    here = visit()
    timer = house.metrics.requests.begin(asked.speculation.asked, here.began)
    try:
        yield left, timer
    finally:
        del house.answers[asked]
        left.cancel()
        asked.close()
        timer.ended(asked.finish_reason, asked.waited, asked.cached_tokens)
        here.answered(asked, timer.count)
