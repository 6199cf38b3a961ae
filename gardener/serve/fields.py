"""From the JSON of a request to its fields, and from what is wrong with one to the error that names
it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from pydantic import ValidationError

from gardener.errors import UserError
from gardener.holder.prompter import TooLong
from gardener.serve.errors import ApiError


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises ApiError."""
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:  # not UTF-8, half a character, no JSON, too deep
        raise ApiError(
            400, f"the body is no JSON ({error}): send an object in UTF-8", code="invalid_json"
        ) from error
    if not isinstance(found, dict):
        raise ApiError(400, f"the body is {shown(found)}: send a JSON object", code="invalid_json")
    return found


def as_error(error: ValidationError) -> ApiError:
    """The first thing that is wrong."""
    first = error.errors(include_url=False, include_context=False)[0]
    param = path(first["loc"])
    if first["type"] == "missing":
        return refused(param, f"{param} is missing")
    said = first["msg"][:1].lower() + first["msg"][1:]
    return refused(param, f"{param} is {shown(first['input'])}: {said}")


def path(parts: Sequence[str | int]) -> str:
    """Where in the request a field is, as OpenAI writes it: `messages[0].content`."""
    steps = (f"[{each}]" if isinstance(each, int) else f".{each}" for each in parts)
    return "".join(steps).removeprefix(".")


def refused(param: str, message: str, code: str | None = None) -> ApiError:
    """A field that cannot be."""
    return ApiError(400, message, param=param, code=code)


def setting_refused(error: ValueError) -> ApiError:
    """A complaint of `Sampling`, which names the field first."""
    return refused(str(error).split()[0], str(error))


@contextmanager
def about(param: str) -> Iterator[None]:
    """What cannot be asked, in here, is because of this field."""
    try:
        yield
    except TooLong as error:
        raise refused(param, error.over_http, "context_length_exceeded") from error
    except UserError as error:
        raise refused(param, error.over_http) from error


def shown(value: object) -> str:
    """A value in an error, as JSON has it, and short."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError):
        text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
