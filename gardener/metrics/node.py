"""What is read from a stage when Prometheus asks: passes, rows, memory, links."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from gardener.net.link import Link
from gardener.protocol.cards import kv_slots
from gardener.runtime.wording import bare_span
from gardener.stages.phases import Phase, Phases

if TYPE_CHECKING:  # it imports torch
    from gardener.stages.node import StageNode


class NodeCollector(Collector):
    """One node, before and after it has loaded its layers. Read it on the event loop."""

    def __init__(self, registry: CollectorRegistry, phases: Phases) -> None:
        self._stage, self._phases = str(phases.stage), phases
        self._node: StageNode | None = None
        registry.register(self)

    def begin(self, node: "StageNode") -> None:
        """It has loaded its layers."""
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """All there is to tell now."""
        node = self._node
        ready = node is not None and node.ready
        yield self._gauge("gardener_node_ready", "1: the stages beside it are there.", ready)
        yield from self._starting()
        if node is None:
            return
        card, scheduler = node.card, node.scheduler
        totals = scheduler.totals
        facts = {
            "stage": self._stage,
            "layers": bare_span(card.first, card.end),
            "dtype": card.dtype,
            "quant": card.quant,
            "version": card.version,
        }
        yield InfoMetricFamily("gardener_node", "What the node is.", value=facts)
        yield from (
            self._gauge("gardener_node_layers", "Layers it holds.", card.end - card.first),
            self._gauge("gardener_node_weights_bytes", "Memory of its weights.", card.memory),
            self._counter("gardener_node_forwards", "Passes it computed.", totals.forwards),
            self._counter("gardener_node_rows", "Rows in these passes.", totals.rows),
            self._counter("gardener_node_compute_seconds", "What these took.", totals.seconds),
            self._counter(
                "gardener_node_rows_dropped",
                "Rows that came and had died before they were computed.",
                totals.dropped,
            ),
            self._gauge(
                "gardener_node_segments_waiting",
                "Segments that came and have not left.",
                scheduler.waiting,
            ),
        )
        yield from self._requests(node)
        yield from self._links(node)

    def _starting(self) -> Iterator[Metric]:
        """What it does until it serves."""
        now = self._phases.moment.phase
        phase = GaugeMetricFamily(
            "gardener_node_phase",
            "1: what it does now.",
            labels=("stage", "phase"),
        )
        for each in Phase:
            phase.add_metric((self._stage, each.name.lower()), each is now)
        yield phase
        yield self._gauge(
            "gardener_node_loaded_ratio",
            "Share of the bytes of its weights that has been read.",
            self._phases.loaded,
        )

    def _requests(self, node: "StageNode") -> Iterator[Metric]:
        scheduler, room = node.scheduler, kv_slots(node.card)
        requests = GaugeMetricFamily(
            "gardener_node_requests",
            "Requests that are open here, and those of which something is kept.",
            labels=("stage", "state"),
        )
        requests.add_metric((self._stage, "running"), len(scheduler.requests))
        requests.add_metric((self._stage, "kept"), len(scheduler.kept))
        yield requests
        yield self._gauge(
            "gardener_node_kv_slots_used",
            "Slots set aside for running and kept requests.",
            scheduler.slots,
        )
        if room is not None:
            yield self._gauge("gardener_node_kv_slots", "Slots for which there is memory.", room)

    def _links(self, node: "StageNode") -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "gardener_node_peer_up",
            "1: the link to this peer stands (stage 0 is the holder, which comes and goes).",
            labels=("stage", "side", "peer"),
        )
        trips = GaugeMetricFamily(
            "gardener_node_link_round_trip_seconds",
            "Least recent time from Ping to Pong.",
            labels=("stage", "side", "peer"),
        )
        traffic = CounterMetricFamily(
            "gardener_node_link_bytes",
            "Bytes received from one side and sent to it.",
            labels=("stage", "side", "direction"),
        )
        for side, (peer, link) in _sides(node).items():
            labels = (self._stage, side, str(peer))
            up.add_metric(labels, link is not None)
            if link is not None and link.round_trip is not None:
                trips.add_metric(labels, link.round_trip)
            received, sent = node.neighbours.traffic(side == "upstream")
            traffic.add_metric((self._stage, side, "received"), received)
            traffic.add_metric((self._stage, side, "sent"), sent)
        yield from (up, trips, traffic)

    def _gauge(self, name: str, what: str, value: float) -> Metric:
        made = GaugeMetricFamily(name, what, labels=("stage",))
        made.add_metric((self._stage,), value)
        return made

    def _counter(self, name: str, what: str, value: float) -> Metric:
        made = CounterMetricFamily(name, what, labels=("stage",))
        made.add_metric((self._stage,), value)
        return made


def _sides(node: "StageNode") -> Mapping[str, tuple[int, Link | None]]:
    """By side, which stage is there (0: the holder), and the link to it."""
    card = node.card
    after = 0 if card.end == card.layers else card.stage + 1
    return {
        "upstream": (card.stage - 1, node.upstream),
        "downstream": (after, node.downstream),
    }
