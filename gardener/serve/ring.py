"""GET /ring/events: the ring as it works, as server-sent events; GET /ring/status: once.

Whoever may ask sees there what others asked for, so both are left out with the page (`--no-page`).
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gardener.serve.errors import json_response, not_standing
from gardener.serve.feed import Watching
from gardener.serve.house import house_of


async def ring_events(request: Request) -> Response:
    """One state after another. Raises ApiError (503) where too many look already."""
    feed = house_of(request).feed
    if request.method == "HEAD":
        return Response(media_type=Watching.media_type)
    feed.join()
    return Watching(feed)


async def ring_status(request: Request) -> Response:
    """The state now. Raises ApiError (503) while there is no ring."""
    house = house_of(request)
    status = house.feed.now()
    if status is None:
        raise not_standing(house.keeper.why)
    return json_response(status)


ROUTES = (Route("/ring/events", ring_events), Route("/ring/status", ring_status))
