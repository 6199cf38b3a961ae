"""One line in the log for each request that was answered, and a count of them. Pure ASGI."""

import logging
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gardener.runtime import clock
from gardener.runtime.wording import printable
from gardener.serve.asked import Asked
from gardener.serve.house import House, house_of

log = logging.getLogger(__name__)

PATHS = frozenset(
    (
        *("/", "/health", "/ready", "/version", "/metrics", "/ring/events", "/ring/status"),
        *("/v1/models", "/v1/chat/completions", "/v1/completions"),
    )
)
FOLDERS = ("/v1/models/", "/page/")
METHODS = frozenset(("GET", "POST", "HEAD", "OPTIONS"))
OTHER = "other"
"""Stands for all paths and methods that do not exist: a label may have few values."""

QUIET = frozenset(("/health", "/ready", "/metrics", "/ring/status"))
EXPECTED = frozenset((200, 503))
"""These are asked by programs all day long: no line for an answer that such a program expects."""

LONGEST = 200
"""Characters of a path in a line."""


@dataclass
class Visit:
    """What is known of a request while it is answered.

    began  when it came, in seconds of `clock`
    facts  what its line tells besides
    """

    began: float = field(default_factory=clock.now)
    facts: dict[str, object] = field(default_factory=dict)

    def answered(self, asked: Asked, tokens: int) -> None:
        """Its answer is over, with so many tokens."""
        self.facts = {
            "request": asked.number,
            "prompt_tokens": asked.speculation.asked,
            "tokens": tokens,
            "finish": asked.finish_reason or "failed",
        }


_visit: ContextVar[Visit | None] = ContextVar("visit", default=None)


def visit() -> Visit:
    """The one that is answered in this task; a new one if there is none."""
    return _visit.get() or Visit()


class Logged:
    """Stands where the request has its id already."""

    def __init__(self, app: ASGIApp, house: House) -> None:
        self._app, self._requests = app, house.metrics.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit, status = Visit(), 500  # if it ends without a response, there is a bug
        _visit.set(visit)

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            method, path = scope["method"], scope["path"]
            self._requests.answered(method if method in METHODS else OTHER, route(path), status)
            if path not in QUIET or status not in EXPECTED:
                _tell(method, path, status, visit)


def route(path: str) -> str:
    """The label of a path."""
    if path in PATHS:
        return path
    return next((folder for folder in FOLDERS if path.startswith(folder)), OTHER)


def _tell(method: str, path: str, status: int, visit: Visit) -> None:
    method, path = printable(method[:LONGEST]), printable(path[:LONGEST])
    seconds, facts = clock.now() - visit.began, visit.facts
    answer = ""
    if facts:
        answer = f", {facts['tokens']} tokens ({facts['finish']}), request {facts['request']}"
    log.info(
        f"{method} {path} {status} in {seconds:.3f} s{answer}",
        extra={
            "method": method,
            "path": path,
            "status": status,
            "seconds": round(seconds, 6),
            **facts,
        },
    )


async def metrics(request: Request) -> Response:
    """GET /metrics, for Prometheus. It needs the API key as all that tells of the ring does."""
    accept = Headers(scope=request.scope).get("accept", "")
    body, content_type = house_of(request).exposition(accept)
    return Response(body, headers={"content-type": content_type})
