"""The routes and what stands before them."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from gardener.serve import chat, completions, models
from gardener.serve.access import Guarded, Marked
from gardener.serve.errors import ApiError, api_error, http_error
from gardener.serve.house import House
from gardener.serve.settings import ServeSettings


def make_app(house: House) -> Starlette:
    """The server as an ASGI application."""
    app = Starlette(
        routes=[
            Route("/health", models.health),
            Route("/ready", models.ready),
            Route("/version", models.version),
            Route("/v1/models", models.models),
            Route("/v1/models/{name:path}", models.model),
            Route("/v1/chat/completions", chat.chat_completions, methods=["POST"]),
            Route("/v1/completions", completions.completions, methods=["POST"]),
        ],
        middleware=_before(house.settings),
        exception_handlers={
            ApiError: api_error,
            HTTPException: http_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.house = house
    return app


def _before(settings: ServeSettings) -> list[Middleware]:
    """What a request passes before it comes to a route, from outside in."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "retry-after"],
    )
    return [
        Middleware(Marked),
        *([cors] if settings.cors else []),
        Middleware(Guarded, settings=settings),
    ]
