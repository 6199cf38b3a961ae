"""All metrics of a server, in a registry of its own."""

from prometheus_client import CollectorRegistry, ProcessCollector

from gardener.metrics.exposition import exposition
from gardener.metrics.requests import RequestMetrics
from gardener.metrics.ring import RingCollector


class ServerMetrics:
    """Of one server for one model.

    requests  is told of each request
    ring      is told of each ring that was opened
    """

    def __init__(self, model: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = RequestMetrics(self._registry, model)
        self.ring = RingCollector(self._registry, model)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """See `exposition`. To be called on the event loop of the ring."""
        return exposition(self._registry, accept)
