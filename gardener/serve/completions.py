"""POST /v1/completions."""

from starlette.requests import Request
from starlette.responses import Response

from gardener.serve.asking import respond
from gardener.serve.requests import CompletionRequest


async def completions(request: Request) -> Response:
    """A text that goes on."""
    return await respond(request, CompletionRequest)
