"""POST /v1/chat/completions."""

from starlette.requests import Request
from starlette.responses import Response

from gardener.serve.asking import respond
from gardener.serve.requests import ChatRequest


async def chat_completions(request: Request) -> Response:
    """The next turn of a chat."""
    return await respond(request, ChatRequest)
