"""POST /v1/completions."""

from starlette.requests import Request
from starlette.responses import Response

from gardener.serve.simple import answer


async def completions(request: Request) -> Response:
    """A text that goes on."""
    return await answer(request, chat=False)
