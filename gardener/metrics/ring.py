"""What is read from a holder when Prometheus asks: requests, guesses, stages, links.

The keeper of a server opens a ring again after it broke, with another holder. Counters go on from
where they were: what earlier rings had counted is kept.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from gardener.holder.holder import Holder
from gardener.holder.totals import Totals
from gardener.net.link import Link
from gardener.protocol.cards import exactness
from gardener.runtime import clock

SPECULATION = {
    "gardener_spec_decode_num_drafts": ("segments", "Segments with rows of the token tree."),
    "gardener_spec_decode_num_draft_tokens": ("drafted", "Tokens that drafters have guessed."),
    "gardener_spec_decode_num_accepted_tokens": ("accepted", "Guessed tokens that were accepted."),
    "gardener_missed_tokens": ("missed", "Tokens of answers that nobody had guessed."),
    "gardener_unguessed_tokens": (
        "plain",
        "Tokens of answers written while guesses were turned off, since they did not pay.",
    ),
    "gardener_rows": ("rows", "Rows of token trees sent into the ring."),
    "gardener_rows_wasted": (
        "wasted",
        "Rows of token trees sent that did not come true, or came after the end.",
    ),
    "gardener_prefill_segments": ("prefill", "Segments with rows of a prompt alone."),
}
"""Counter -> the field of `Counts`, and what it means."""


class RingCollector(Collector):
    """The ring of one server, however often it is opened again. Read it on the event loop; only a
    simulated ring changes meanwhile. As with vLLM, requests, guesses and the KV cache are those of
    a `model`."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._holder: Holder | None = None
        self._waiting: Callable[[], int] | None = None
        self._past = Totals()  # of the rings before
        self._model = {"model_name": model}
        registry.register(self)

    def watch(self, holder: Holder, waiting: Callable[[], int] | None = None) -> None:
        """The ring was opened, for the first time or again. Once told or often, it is the same.
        `waiting`: how many requests wait for their turn, where the holder does not know all."""
        if holder is self._holder:
            return
        if self._holder is not None:
            self._past = self._totals(clock.now())
        self._holder, self._waiting = holder, waiting

    def collect(self) -> Iterator[Metric]:
        """All there is to tell now."""
        holder, now = self._holder, clock.now()
        yield _gauge(
            "gardener_ring_up",
            "1 while the ring stands.",
            0 if holder is None or not holder.stands else 1,
        )
        totals = self._totals(now)
        yield from self._requests(holder)
        yield from self._speculation(totals)
        yield from _stages(totals)
        busy = totals.busy(now)
        yield _counter("gardener_busy_seconds", "Seconds in which a request ran.", busy)
        yield from _bubbles(holder, now)
        if holder is not None and holder.cards:
            yield from _ring(holder)

    def _totals(self, now: float) -> Totals:
        """Over all rings, running requests included."""
        totals = Totals()
        totals.add(self._past, now)
        if self._holder is not None:
            totals.add(self._holder.totals, now)
            for session in tuple(self._holder.admission.running.values()):
                totals.counts.add(session.speculation.counts)
        return totals

    def _requests(self, holder: Holder | None) -> Iterator[Metric]:
        admission = None if holder is None else holder.admission
        running = 0 if admission is None else len(admission.running)
        waiting = 0 if admission is None else len(admission.waiting)
        if admission is not None and self._waiting is not None:
            waiting = self._waiting()
        model = self._model
        yield _gauge("gardener_num_requests_running", "Requests that run.", running, model)
        what = "Requests that wait for their turn."
        yield _gauge("gardener_num_requests_waiting", what, waiting, model)
        if admission is not None and admission.prefixes.room:
            prefixes = admission.prefixes
            yield _gauge(
                "gardener_kv_cache_usage_perc",
                "Share of the slots of the KV cache that running and kept requests take; 1: all.",
                prefixes.used / (prefixes.room or 1),
                model,
            )
            yield _gauge(
                "gardener_prefixes_kept",
                "Ended requests with whose keys and values others may begin.",
                len(prefixes.kept),
            )

    def _speculation(self, totals: Totals) -> Iterator[Metric]:
        model = self._model
        for name, (field, what) in SPECULATION.items():
            yield _counter(name, what, getattr(totals.counts, field), model)
        yield _counter("gardener_verdicts", "Segments that came back judged.", totals.verdicts)
        yield _counter("gardener_ring_breaks", "How often the ring broke.", totals.breaks)
        by_position = _family(
            "gardener_spec_decode_num_accepted_tokens_per_pos",
            "Verdicts that accepted more guesses at once than `position`.",
            ("model_name", "position"),
        )
        for position in range(max(totals.runs, default=0)):
            count = sum(count for run, count in totals.runs.items() if run > position)
            by_position.add_metric((model["model_name"], str(position)), count)
        yield by_position


def _stages(totals: Totals) -> Iterator[Metric]:
    yield _by_stage(
        "gardener_stage_compute_seconds",
        "Seconds for which a stage computed, as the verdicts told.",
        totals.compute,
    )
    yield _by_stage(
        "gardener_stage_wait_seconds",
        "Seconds for which segments waited at a stage, summed over segments.",
        totals.wait,
    )


def _bubbles(holder: Holder | None, now: float) -> Iterator[Metric]:
    """Of this ring alone: another one may have other stages."""
    share = None if holder is None else holder.totals.bubbles(now)
    if share is not None:
        yield _gauge(
            "gardener_bubble_share",
            "Share of the time in which a request ran, since the ring was opened, in which the "
            "stage that computed most stood idle.",
            share,
        )


def _ring(holder: Holder) -> Iterator[Metric]:
    cards = holder.cards
    up = GaugeMetricFamily(
        "gardener_peer_up", "0: the stage is known to be lost.", labels=("stage", "name")
    )
    for card in cards:
        up.add_metric((str(card.stage), card.name), card.stage not in holder.downtime.lost)
    yield up
    facts = {
        "stages": str(len(cards)),
        "dtype": cards[0].dtype,
        "quant": cards[0].quant,
        "exactness": exactness(cards).partition(":")[0],
    }
    yield InfoMetricFamily("gardener_ring", "What the ring is.", value=facts)
    hops = GaugeMetricFamily(
        "gardener_hop_latency_seconds",
        "From one end of a hop to the other, as measured when the ring was opened; 0 is the "
        "holder.",
        labels=("hop",),
    )
    for number, hop in enumerate(holder.costs.hops):
        hops.add_metric((f"{number}-{(number + 1) % (len(cards) + 1)}",), hop.delay)
    yield hops
    trips = GaugeMetricFamily(
        "gardener_link_round_trip_seconds",
        "Least recent time from Ping to Pong on a link of the holder, by the stage at its end.",
        labels=("stage",),
    )
    for stage, link in _links(holder).items():
        if link is not None and link.round_trip is not None:
            trips.add_metric((stage,), link.round_trip)
    yield trips


def _links(holder: Holder) -> Mapping[str, Link | None]:
    """The two links of the holder; one stage is at the end of both if it is alone."""
    return {str(len(holder.cards)): holder.ring.upstream, "1": holder.ring.downstream}


def _gauge(name: str, what: str, value: float, labels: Mapping[str, str] = {}) -> Metric:
    made = GaugeMetricFamily(name, what, labels=tuple(labels))
    made.add_metric(tuple(labels.values()), value)
    return made


def _counter(name: str, what: str, value: float, labels: Mapping[str, str] = {}) -> Metric:
    made = _family(name, what, tuple(labels))
    made.add_metric(tuple(labels.values()), value)
    return made


def _family(name: str, what: str, labels: Sequence[str]) -> CounterMetricFamily:
    return CounterMetricFamily(name, what, labels=labels)


def _by_stage(name: str, what: str, seconds: Iterable[float]) -> Metric:
    made = _family(name, what, ("stage",))
    for stage, each in enumerate(seconds, 1):
        made.add_metric((str(stage),), each)
    return made
