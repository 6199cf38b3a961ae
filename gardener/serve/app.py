"""The routes and what stands before them."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from gardener.serve import chat, completions, models, page, ring
from gardener.serve.access import Guarded, Marked
from gardener.serve.errors import ApiError, api_error, http_error
from gardener.serve.house import House
from gardener.serve.logged import Logged, metrics


def make_app(house: House) -> Starlette:
    """The server as an ASGI application."""
    app = Starlette(
        routes=[
            Route("/health", models.health),
            Route("/ready", models.ready),
            Route("/version", models.version),
            Route("/metrics", metrics),
            Route("/v1/models", models.models),
            Route("/v1/models/{name:path}", models.model),
            Route("/v1/chat/completions", chat.chat_completions, methods=["POST"]),
            Route("/v1/completions", completions.completions, methods=["POST"]),
            *((*ring.ROUTES, *page.ROUTES) if house.settings.page else ()),
        ],
        middleware=_before(house),
        exception_handlers={
            ApiError: api_error,
            HTTPException: http_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.house = house
    return app


def _before(house: House) -> list[Middleware]:
    """What a request passes before it comes to a route, from outside in."""
    settings = house.settings
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "retry-after"],
    )
    return [
        Middleware(Marked),
        Middleware(Logged, house=house),
        *([cors] if settings.cors else []),
        Middleware(Guarded, settings=settings),
    ]
