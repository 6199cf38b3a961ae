"""What there is to ask, and how the server is: models, health, readiness, version."""

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

import gardener
from gardener.serve.errors import ApiError, json_response
from gardener.serve.house import House, house_of
from gardener.serve.scope import MAY_ASK


def unknown_model(name: str, house: House) -> ApiError:
    """Nobody here is called so."""
    return ApiError(
        404,
        f"the model {name!r} is not served here: ask for {house.model!r}",
        param="model",
        code="model_not_found",
    )


def _described(house: House) -> dict[str, Any]:
    ring = house.keeper.ring
    described: dict[str, Any] = {
        "id": house.model,
        "object": "model",
        "created": house.created,
        "owned_by": "gardener",
    }
    return described if ring is None else {**described, "max_model_len": ring.prompter.context}


async def models(request: Request) -> Response:
    """GET /v1/models."""
    return json_response({"object": "list", "data": [_described(house_of(request))]})


async def model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    house, name = house_of(request), request.path_params["name"]
    if name != house.model:
        raise unknown_model(name, house)
    return json_response(_described(house))


async def health(request: Request) -> Response:
    """GET /health: the server answers, whatever the ring does."""
    return json_response({"status": "ok"})


async def ready(request: Request) -> Response:
    """GET /ready: the ring stands, or 503. Why not is told to who may ask."""
    try:
        house_of(request).check_ready()
    except ApiError as error:
        if request.scope[MAY_ASK]:
            raise
        raise replace(error, message="not ready: with the API key, /ready says why") from None
    return json_response({"status": "ready"})


async def version(request: Request) -> Response:
    """GET /version."""
    return json_response({"version": gardener.__version__})
