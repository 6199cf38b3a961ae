"""Who may ask, and what every request and every response carries. Pure ASGI: a token passes here
without a copy.

A server without a key is for programs on this machine. So that a page which somebody looks at in a
browser here is no such program, it takes no request that was meant for another host (DNS rebinding)
or comes from a page of another origin.
"""

import hmac
import logging
import re
import uuid
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gardener.net.address import is_loopback
from gardener.runtime.logs import request_id
from gardener.serve.errors import ApiError, told_nothing
from gardener.serve.scope import MAY_ASK
from gardener.serve.settings import ServeSettings

log = logging.getLogger(__name__)

MOST_BODY = 8 * 2**20
"""Bytes of a request: a context of a million tokens fits."""

HARMLESS = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""A request id of a client that may stand in logs and headers."""

OPEN_PATHS = frozenset(("/", "/favicon.ico", "/health", "/ready", "/version"))
OPEN_FOLDER = "/page/"
"""What is answered without a key: probes, and the page, whose scripts then ask with one."""

ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of all responses that do not say otherwise themselves."""


class Marked:
    """Gives each request an id, each response its headers, and a bug an honest answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        mark = given if HARMLESS.fullmatch(given) else f"req-{uuid.uuid4().hex}"
        request_id.set(mark)
        started = False

        async def marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = mark
                for name, value in ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, marked)
        except Exception as error:
            log.exception("request %s failed", mark)
            if started:
                raise  # the server breaks the connection: what was sent is not complete
            await told_nothing(error).response()(scope, receive, marked)


class Guarded:
    """Refuses who may not ask, and what is too long."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._cors, self._host = app, settings.cors, settings.host
        self._key = None if settings.api_key is None else settings.api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            _check_length(headers)
            self._check(scope, headers)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        if self._key is None:
            self._check_neighbour(scope, headers)
            scope[MAY_ASK] = True
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self._key)
        scope[MAY_ASK] = right and scheme.lower() == "bearer"
        path: str = scope["path"]
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return
        if not scope[MAY_ASK]:
            what = "wrong" if given else "missing"
            raise ApiError(
                401,
                f"the API key is {what}: send `Authorization: Bearer KEY`",
                code="invalid_api_key",
            )

    def _check_neighbour(self, scope: Scope, headers: Headers) -> None:
        """The request was made on this machine, and not for a page from elsewhere."""
        host = headers.get("host", "")
        name = _name(f"//{host}")
        if host and name != self._host and not is_loopback(name):
            raise ApiError(
                403,
                f"without --api-key this server is for programs on its own machine, which call it "
                f"localhost and not {host}",
                code="wrong_host",
            )
        origin = headers.get("origin")
        own = f"{scope.get('scheme', 'http')}://{host}"
        if origin is not None and origin != own and not {origin, "*"} & {*self._cors}:
            allow = "* (it names no origin)" if origin == "null" else origin
            raise ApiError(
                403,
                f"a page of {origin} may not ask this server: allow it with --cors {allow}",
                code="wrong_origin",
            )


def _name(url: str) -> str:
    """The host in a URL; empty if there is none."""
    try:
        return (urlsplit(url).hostname or "").removesuffix(".")  # it may be written as absolute
    except ValueError:
        return ""


def _check_length(headers: Headers) -> None:
    length = headers.get("content-length", "")
    if length and "transfer-encoding" in headers:
        raise ApiError(
            400,
            "the request has both Content-Length and Transfer-Encoding: send one of them",
            code="invalid_http",
            closes=True,
        )
    if length.isdigit() and int(length) > MOST_BODY:
        raise _too_long()


def _too_long() -> ApiError:
    return ApiError(413, f"the request is longer than {MOST_BODY} bytes", code="request_too_large")


def _bounded(receive: Receive) -> Receive:
    """The same; raises ApiError once it has brought too much."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BODY:
            raise _too_long()
        return message

    return bounded
