"""What lies in the ASGI scope of a request beside what belongs there."""

from collections.abc import Callable
from typing import TypeAlias

from starlette.types import Scope

MAY_ASK = "gardener.may_ask"
"""Whether the request brought the API key, or none is needed."""

WRITE = "gardener.write"
"""A `Write`, where the server has one."""

Write: TypeAlias = Callable[[bytes], bool]
"""Sends a part of a response that has begun, without waiting and without what stands between the
route and the socket; False: it cannot, `send` it."""


def write_of(scope: Scope) -> Write:
    """Of this request."""
    write: Write = scope.get(WRITE, _cannot)
    return write


def _cannot(data: bytes) -> bool:
    return False
