"""What all routes share."""

import asyncio
from typing import Any

from starlette.requests import Request

from gardener.metrics.server import ServerMetrics
from gardener.serve.asked import Asked, Ring
from gardener.serve.errors import SHUTTING_DOWN, ApiError, not_standing
from gardener.serve.feed import Feed
from gardener.serve.keeper import RingKeeper
from gardener.serve.reading import Readers
from gardener.serve.settings import ServeSettings


class House:
    """Lies in `request.app.state.house`.

    model     what clients call the model
    answers   that are under way, and the tasks that write them
    closing   set when no more requests are taken
    metrics   for Prometheus
    readers   of requests that are long
    created   when the server began, in seconds since 1970: the age of the model, for clients
    """

    def __init__(
        self, settings: ServeSettings, keeper: RingKeeper, model: str, created: int
    ) -> None:
        self.settings, self.keeper, self.model, self.created = settings, keeper, model, created
        self.answers: dict[Asked, asyncio.Task[Any]] = {}
        self.closing = asyncio.Event()
        self.feed = Feed(keeper)
        self.readers = Readers()
        self.metrics = ServerMetrics(model)

    def ring(self) -> Ring:
        """The ring, to ask it. Raises ApiError (503) if there is none, or if the server ends."""
        if self.closing.is_set():
            raise ApiError(503, SHUTTING_DOWN, code="shutting_down")
        ring = self.keeper.ring
        if ring is None:
            raise not_standing(self.keeper.why)
        self._watch(ring)
        return ring

    @property
    def condition(self) -> str:
        """What the ring waits for since it broke, in a sentence; empty: it is not broken."""
        ring = self.keeper.ring
        return "" if ring is None else ring.holder.condition

    def check_ready(self) -> None:
        """Raise ApiError (503) unless the ring stands. A request that is asked while it is broken
        is not lost: it waits."""
        self.ring()
        if self.condition:
            raise not_standing(self.condition)

    def _watch(self, ring: Ring) -> None:
        self.metrics.ring.watch(ring.holder, lambda: ring.waiting)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics, in the format that an `Accept` header asks for, and its content type."""
        if self.keeper.ring is not None:
            self._watch(self.keeper.ring)
        return self.metrics.exposition(accept)


def house_of(request: Request) -> House:
    """The house that serves this request."""
    house: House = request.app.state.house
    return house
