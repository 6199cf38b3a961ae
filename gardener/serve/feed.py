"""The ring as it works, for all who look at it: the events that `ring.py` sends.

Each event brings a whole `HolderStatus` as JSON (`event: status`), or says why there is no ring
(`event: down`, `{"why": "..."}`). There is one watcher for all who look, and none while nobody
does. Whoever reads slowly gets the newest state and misses those between.

A status holds text that others asked for. So who may ask may see it, and nobody else: with an API
key the feed wants the key, too; without one the server is for this machine alone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gardener.runtime import clock
from gardener.serve.asked import Ring
from gardener.serve.errors import ApiError
from gardener.serve.keeper import RingKeeper
from gardener.watch.status import ColouredText, HolderStatus
from gardener.watch.watcher import RingWatcher

log = logging.getLogger(__name__)

PERIOD = 0.2
"""Seconds between two states while something moves."""

QUIET = 1.0
"""Seconds between two states while nothing does but the figures of the links."""

HEARTBEAT = 10.0
"""Seconds without an event after which a comment says that the feed is alive."""

MOST = 16
"""Viewers at a time."""

SHOWN_TEXT = 1_200
"""Characters of the end of an answer that go into a state."""

COMMENT = b": still here\n\n"


class Feed:
    """What is to see of the ring that `keeper` keeps. `close` it, or its readers wait for ever."""

    def __init__(self, keeper: RingKeeper, most: int = MOST) -> None:
        self._keeper, self._most = keeper, most
        self._ring: Ring | None = None  # that is watched
        self._watcher: RingWatcher | None = None
        self._watching: asyncio.Task[None] | None = None
        self._viewers = 0
        self._latest = b""
        self._changed = asyncio.Event()  # set and replaced with every state
        self._closed = False

    def now(self) -> HolderStatus | None:
        """The state; None while there is no ring."""
        ring = self._keeper.ring
        if ring is not self._ring:
            self._ring = ring
            self._watcher = (
                None if ring is None else RingWatcher(ring.holder, ring.prompter.backend)
            )
        if self._watcher is None:
            return None
        status = self._watcher.status(clock.now())
        return msgspec.structs.replace(status, text=_end(status.text))

    def join(self) -> None:
        """Somebody comes to look; `leave` has to follow. Raises ApiError if too many do."""
        if self._viewers >= self._most:
            raise ApiError(
                503,
                f"{self._most} viewers watch the ring, and more are not served: close another page",
                code="too_many_viewers",
                retry_after=HEARTBEAT,
            )
        self._viewers += 1
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    def leave(self) -> None:
        """Somebody has gone. Nothing is watched for nobody."""
        self._viewers -= 1
        if not self._viewers and self._watching is not None:
            self._watching.cancel()
            self._watching = self._ring = self._watcher = None
            self._latest = b""

    def close(self) -> None:
        """All events are over."""
        self._closed = True
        self._changed.set()

    async def events(self) -> AsyncIterator[bytes]:
        """For one viewer: the state now, and whenever it changes."""
        seen = b""
        while not self._closed:
            changed = self._changed
            if self._latest is not seen:
                seen = self._latest
                yield seen
                continue
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await changed.wait()
            except TimeoutError:
                yield COMMENT

    async def _watch(self) -> None:
        published, fault = 0.0, ""
        while True:
            now = clock.now()
            try:
                published = self._publish(now, published)
            except (
                Exception
            ) as error:  # others follow: of a simulated ring, which goes on meanwhile
                if (said := repr(error)) != fault:
                    log.exception("the ring could not be shown")
                    fault = said
                self._ring = None  # it is looked at anew
                await asyncio.sleep(QUIET)
            await asyncio.sleep(PERIOD)

    def _publish(self, now: float, published: float) -> float:
        """Tell the state, if it is time for it; when it was told last."""
        status = self.now()
        moves = status is None or status.running > 0 or status.trouble
        if moves or not self._latest or now - published >= QUIET:
            found = self._event(status)
            if found != self._latest:
                self._latest, published = found, now
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()
        return published

    def _event(self, status: HolderStatus | None) -> bytes:
        if status is None:
            down = msgspec.json.encode({"why": self._keeper.why})
            return b"event: down\ndata: " + down + b"\n\n"
        return b"event: status\ndata: " + msgspec.json.encode(status) + b"\n\n"


class Watching(StreamingResponse):
    """The events for one viewer, who has joined."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed.events(), headers={"x-accel-buffering": "no"})
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._feed.leave()


def _end(text: tuple[ColouredText, ...]) -> tuple[ColouredText, ...]:
    """Its last characters."""
    kept: list[ColouredText] = []
    left = SHOWN_TEXT
    for piece in reversed(text):
        if left <= 0:
            break
        kept.append(ColouredText(piece.text[-left:], piece.guessed))
        left -= len(piece.text)
    return tuple(reversed(kept))
