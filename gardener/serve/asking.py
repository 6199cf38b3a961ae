"""From the body of a request to an answer that is under way."""

from collections.abc import Callable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gardener.errors import GardenerError
from gardener.serve.accounts import Standing
from gardener.serve.answering import Form, Stream, whole
from gardener.serve.asked import Asked
from gardener.serve.errors import ApiError, told
from gardener.serve.house import House, house_of
from gardener.serve.models import unknown_model
from gardener.serve.requests import ChatRequest, CompletionRequest
from gardener.serve.responses import ChatForm, CompletionForm, Reply

LONG = 8 * 2**10
"""Bytes of a body that is read on another thread: a megabyte becomes tokens in about a second, and
a ring whose holder is silent for some seconds takes it for dead."""

T = TypeVar("T")


async def respond(request: Request, kind: type[ChatRequest] | type[CompletionRequest]) -> Response:
    """The answer to a request of this kind. Raises ApiError."""
    house = house_of(request)
    try:
        asked, form, streamed = await _begun(request, kind, house)
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads that
    if streamed:
        return Stream(asked, form, house)
    return await whole(asked, form, house, request.receive)


async def _begun(
    request: Request, kind: type[ChatRequest] | type[CompletionRequest], house: House
) -> tuple[Asked, Form, bool]:
    """An answer that is under way, how it is written, and whether it is streamed. What was sent is
    not kept. Raises ApiError, and ClientDisconnect if the client leaves before it is begun."""
    _check_type(request.headers.get("content-type"))
    _check_room(house)
    body = b"".join([chunk async for chunk in request.stream()])
    long = len(body) > LONG

    async def aside(work: Callable[[], T]) -> T:
        """Do it, on another thread if it takes long."""
        return await house.readers.read(work, request.receive) if long else work()

    wanted = await aside(lambda: kind.read(body))
    if wanted.model != house.model:
        raise unknown_model(wanted.model, house)
    prompter, usual = house.ring().prompter, house.keeper.usual
    question = await aside(lambda: wanted.question(prompter, usual))
    ring, settings = house.ring(), house.settings  # again: that may have taken a while
    reply = Reply(
        house.model,
        question,
        Standing.of(ring),
        prompter.backend,
        wanted.wants_usage,
        wanted.wants_pieces,
    )
    form: Form = ChatForm(reply) if isinstance(wanted, ChatRequest) else CompletionForm(reply)
    try:
        asked = question.ask(ring, settings.policy, settings.bounds)
    except GardenerError as error:
        raise told(error) from error
    return asked, form, wanted.streamed


def _check_room(house: House) -> None:
    """Raises ApiError if no more answers are begun now: before all is read that was sent."""
    try:
        house.ring().check_room()
    except GardenerError as error:
        raise told(error) from error


def _check_type(content: str | None) -> None:
    """Raises ApiError for a body that says that it is no JSON."""
    kind = (content or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(
            415,
            f"the body is {kind}: send JSON, and say so with `Content-Type: application/json`",
            code="unsupported_media_type",
        )
