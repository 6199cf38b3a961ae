"""What is observed of requests, under a clock that the test moves."""

import pytest
from prometheus_client import CollectorRegistry

from gardener.metrics.requests import RequestMetrics
from gardener.runtime import clock


class Times:
    """A clock and what was observed under it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.metrics = RequestMetrics(self.registry, "m")

    def value(self, name: str, **labels: str) -> float | None:
        if not name.startswith("gardener_http"):
            labels["model_name"] = "m"
        return self.registry.get_sample_value(name, labels)

    def histogram(self, name: str) -> tuple[float | None, float | None]:
        """Count and sum."""
        return self.value(f"{name}_count"), self.value(f"{name}_sum")


def test_what_a_request_took_and_brought() -> None:
    times = Times()
    with clock.using(lambda: times.now):
        timer = times.metrics.begin(prompt_tokens=40, asked=99.5)
        times.now = 102.0
        timer.tokens(2)  # at once: there is no time between them
        times.now = 102.6
        timer.tokens(0)  # text that was held back
        timer.tokens(3)
        times.now = 103.0
        timer.tokens(1)
        times.now = 104.5
        timer.ended("eos", waited=0.25, cached_tokens=32)
    assert timer.count == 6
    assert times.histogram("gardener_time_to_first_token_seconds") == (1, 2.5)
    count, total = times.histogram("gardener_inter_token_latency_seconds")
    assert count == 4
    assert total == pytest.approx(1.0)
    within = times.value("gardener_inter_token_latency_seconds_bucket", le="0.2")
    assert within == 3, "three tokens of one verdict share 0.6 s"
    assert times.histogram("gardener_e2e_request_latency_seconds") == (1, 5.0)
    assert times.histogram("gardener_request_queue_time_seconds") == (1, 0.25)
    assert times.value("gardener_prompt_tokens_total") == 40
    assert times.value("gardener_prompt_tokens_cached_total") == 32
    assert times.value("gardener_generation_tokens_total") == 6
    assert times.value("gardener_request_success_total", finished_reason="stop") == 1


def test_a_request_that_never_had_its_turn_has_no_time_in_the_queue() -> None:
    times = Times()
    times.metrics.begin(3, 0.0).ended("abandoned", None, 0)
    assert times.histogram("gardener_request_queue_time_seconds") == (0, 0)
    assert times.histogram("gardener_time_to_first_token_seconds") == (0, 0)
    assert times.value("gardener_request_success_total", finished_reason="abort") == 1


@pytest.mark.parametrize(
    ("reason", "label"),
    [
        ("eos", "stop"),
        ("stop", "stop"),
        ("length", "length"),
        ("context", "length"),
        ("abandoned", "abort"),
        ("failed", "error"),
        ("lost", "error"),
        (None, "error"),
    ],
)
def test_an_answer_that_broke_is_never_a_stop(reason: str | None, label: str) -> None:
    times = Times()
    times.metrics.finished(reason)
    for other in ("stop", "length", "abort", "error"):
        found = times.value("gardener_request_success_total", finished_reason=other)
        assert found == (other == label)


def test_responses_are_counted_by_route_and_status() -> None:
    times = Times()
    for status in (200, 200, 404):
        times.metrics.answered("GET", "/v1/models", status)
    labels = {"method": "GET", "path": "/v1/models"}
    assert times.value("gardener_http_requests_total", status="200", **labels) == 2
    assert times.value("gardener_http_requests_total", status="404", **labels) == 1
