"""What goes wrong, in the form in which OpenAI's clients read it."""

import http
from dataclasses import dataclass
from math import ceil
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gardener.errors import Busy, LocalError, PeerLost, StageFailed, UserError

SHUTTING_DOWN = "the server is shutting down"

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
"""Status -> `type` of an error; of others below 500 it is that of 400."""


class Ended(UserError):
    """The answer ends here, because whoever serves it does."""


@dataclass
class ApiError(Exception):
    """A request that gets an error for an answer.

    param        the field that is wrong
    code         a word that programs know the case by
    retry_after  seconds after which it is worth trying again
    partial      the text that was written before it failed
    closes       nothing more is read from the connection
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None
    partial: str | None = None
    closes: bool = False

    @property
    def kind(self) -> str:
        """See `KINDS`."""
        return KINDS.get(self.status, KINDS[400] if self.status < 500 else "server_error")

    def envelope(self) -> dict[str, Any]:
        """As the body has it."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        if self.partial is not None:
            error["partial"] = self.partial
        return {"error": error}

    def body(self) -> bytes:
        """The envelope as JSON."""
        return msgspec.json.encode(self.envelope())

    def response(self) -> Response:
        """As HTTP has it."""
        headers = {} if self.retry_after is None else {"retry-after": f"{ceil(self.retry_after)}"}
        if self.closes:
            headers["connection"] = "close"
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return Response(self.body(), self.status, headers, "application/json")


def json_response(what: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An object as JSON."""
    return Response(msgspec.json.encode(what), status, headers, "application/json")


def told(error: Exception, partial: str | None = None) -> ApiError:
    """What to tell a client whose request failed so, here or in the ring."""
    match error:
        case ApiError():
            return error
        case Ended():
            return ApiError(503, str(error), code="shutting_down", partial=partial)
        case Busy():
            return ApiError(429, error.over_http, code="queue_full", retry_after=error.retry_after)
        case UserError():
            return ApiError(400, error.over_http, partial=partial)
        case PeerLost():
            return ApiError(
                503, error.over_http, code="ring_lost", retry_after=5.0, partial=partial
            )
        case StageFailed():
            return ApiError(500, str(error), code="stage_failed", partial=partial)
        case LocalError():
            return ApiError(500, str(error), code="internal", partial=partial)
    return told_nothing(error)


def not_standing(why: str) -> ApiError:
    """The ring cannot take requests; `why` is a sentence."""
    return ApiError(503, why, code="ring_not_ready", retry_after=2.0)


async def api_error(request: Request, error: Exception) -> Response:
    """Handler of `ApiError`."""
    assert isinstance(error, ApiError)
    return error.response()


async def http_error(request: Request, error: Exception) -> Response:
    """Handler of what Starlette itself refuses: unknown paths and wrong methods."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        made = ApiError(404, f"there is nothing at {path}", code="unknown_path")
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"{path} does not take {request.method}: use {allowed}"
        made = ApiError(405, message, code="method_not_allowed")
    else:
        phrase = error.detail or http.HTTPStatus(error.status_code).phrase
        made = ApiError(error.status_code, phrase)
    response = made.response()
    response.headers.update(error.headers or {})
    return response


def told_nothing(error: Exception) -> ApiError:
    """What to tell a client where the server itself failed: the log has the rest."""
    kind = type(error).__name__
    return ApiError(500, f"{kind} at the server; this is a bug, please report it", code="internal")
