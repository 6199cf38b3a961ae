"""POST /v1/chat/completions."""

from starlette.requests import Request
from starlette.responses import Response

from gardener.serve.simple import answer


async def chat_completions(request: Request) -> Response:
    """The next turn of a chat."""
    return await answer(request, chat=True)
