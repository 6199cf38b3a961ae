"""One connection of a client: how long it may take, and what it gets that never asked properly.

Whoever can reach the server can open connections, with or without a key. So that they cannot use up
what the ring needs, there are only so many (`ServeSettings.connections`), and each has to bring its
requests, and to take its answers, in a while.
"""

import asyncio
import logging
import sys
import uuid
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from gardener.serve.errors import ApiError
from gardener.serve.scope import WRITE, Write

log = logging.getLogger(__name__)

HEAD = 10.0
"""Seconds in which a request has to come up to its body, from when it may."""

BODY = 30.0
"""Seconds for its body."""

TAKEN = 60.0
"""Seconds in which a client has to take something of what is sent to it."""

LAST = 2.0
"""Seconds that a client has to read why it is sent away, before the connection breaks."""

MOST_REFUSED = 32
"""Connections beyond the limit that are told so; still more are just closed."""


class Connection(H11Protocol):
    """`limit_concurrency` of the configuration is the most connections at a time."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._most, self.limit_concurrency = self.limit_concurrency, None
        self._refused = False  # whatever still comes is not read
        self._full = False  # it is one too many
        self._awaited: object = None  # what the client has to bring
        self._due: asyncio.TimerHandle | None = None
        self._untaken: asyncio.TimerHandle | None = None

    # --- what comes --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        # Whatever the system does not take at once counts as not taken.
        transport.set_write_buffer_limits(1, 0)
        beyond = 0 if self._most is None else len(self.connections) - self._most
        if beyond > MOST_REFUSED:
            transport.abort()
            return
        if beyond > 0:  # it is told so once it asks
            self._full = True
            self._due = self.loop.call_later(LAST, transport.abort)
        else:
            self._await_client()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._refused:
            return
        if self._full:
            self._refuse(
                ApiError(
                    503,
                    f"{self._most} connections are open, and more are not taken: close one, or "
                    "allow more (--connections)",
                    code="too_many_connections",
                    retry_after=HEAD,
                )
            )
            return
        super().data_received(data)

    def handle_events(self) -> None:
        """Data came, or a response is complete."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:  # a request began; its task has not
            self.cycle.scope[WRITE] = self._writer(self.cycle)  # type: ignore[literal-required]
        self._await_client()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        for timer in (self._due, self._untaken):
            if timer is not None:
                timer.cancel()
        self._refused, self._due, self._untaken = True, None, None

    def _await_client(self) -> None:
        """Give the client its time for what it has to bring now."""
        state = self.conn.their_state
        awaited = (state, self.cycle)
        if self._refused or awaited == self._awaited:
            return
        self._awaited = awaited
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if state in (h11.IDLE, h11.SEND_BODY):
            self._due = self.loop.call_later(HEAD if state is h11.IDLE else BODY, self._overdue)

    def _overdue(self) -> None:
        self._due = None
        head = self.conn.their_state is h11.IDLE
        if head and not self.conn.trailing_data[0]:
            self.transport.close()  # it has not begun one
            return
        what, seconds = ("headers", HEAD) if head else ("body", BODY)
        self._refuse(
            ApiError(
                408,
                f"the {what} of the request took longer than {seconds:g} s",
                code="request_timeout",
            )
        )

    # --- what is sent ------------------------------------------------------------------------

    def _writer(self, cycle: RequestResponseCycle) -> Write:
        """Most of what a piece costs on its way is saved so."""
        chunked = cycle.scope["http_version"] == "1.1"  # what has no length is sent in chunks

        def write(data: bytes) -> bool:
            if not (chunked and data) or self.flow.write_paused or cycle.disconnected:
                return False
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            return True

        return write

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: not all of it was taken."""
        super().pause_writing()
        if self._untaken is None:
            self._watch_taking(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`: it was."""
        super().resume_writing()
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def _watch_taking(self, left: int) -> None:
        """Break the connection if nothing is taken of these bytes: then its answer ends, too."""

        def look() -> None:
            now = self.transport.get_write_buffer_size()
            if now < left:
                self._watch_taking(now)
            else:
                self._untaken = None
                self.transport.abort()

        self._untaken = self.loop.call_later(TAKEN, look)

    # --- who is sent away --------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP, or too long."""
        error = sys.exception()  # which is handled where this is called
        status = getattr(error, "error_status_hint", 400)
        if status == 431:
            said = ApiError(431, "the headers are too long", code="headers_too_large")
        else:
            said = ApiError(400, f"{msg} Send HTTP/1.1.", code="invalid_http")
        self._refuse(said)

    def _refuse(self, error: ApiError) -> None:
        """Answer and close: nothing that follows is read. The client has a moment to read the
        answer, which it would not get if what it still sends met a closed connection."""
        self._refused = True
        self._unset_keepalive_if_required()
        if self._due is not None:
            self._due.cancel()
        self._due = self.loop.call_later(LAST, self.transport.abort)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(self._written(error))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False  # nobody is told to go on any more
            self.cycle.message_event.set()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _written(self, error: ApiError) -> bytes:
        response, mark = error.response(), f"req-{uuid.uuid4().hex}"
        log.info("a connection got %s [%s]: %s", error.status, mark, error.message)
        headers = [
            *response.raw_headers,
            (b"x-request-id", mark.encode()),
            (b"connection", b"close"),
        ]
        # A request that was read may have been one for the head alone.
        bare = self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD"
        events = (
            h11.Response(status_code=error.status, headers=headers),
            h11.Data(data=b"" if bare else bytes(response.body)),
            h11.EndOfMessage(),
        )
        return b"".join(self.conn.send(event) or b"" for event in events)

    def _should_upgrade(self) -> bool:
        """There is nothing to upgrade to; the request is answered as it is."""
        return False
