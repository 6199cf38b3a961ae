"""The line in the log for each request, and /metrics as it comes over HTTP."""

import asyncio
import logging

import pytest
from asgi import Call
from loopback import run, until
from prometheus_client.parser import text_string_to_metric_families
from served import PROMPT, Served, served
from starlette.routing import Route

from gardener.serve.logged import OTHER, route

NAME = "gardener.serve.logged"


async def metrics(made: Served, **headers: str) -> dict[tuple[str, ...], float]:
    """Sample name and label values -> value."""
    call = await made.get("/metrics", **headers)
    assert call.status == 200
    assert call.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(call.data.decode())
        for sample in family.samples
    }


def fields(record: logging.LogRecord) -> dict[str, object]:
    """What it says besides its message."""
    names = ("method", "path", "status", "prompt_tokens", "tokens", "finish", "request")
    return {name: record.__dict__[name] for name in names if name in record.__dict__}


def test_an_answer_is_counted_and_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with served() as made:
            with caplog.at_level(logging.INFO, NAME):
                for stream in (True, False):
                    assert (await made.complete(stream=stream).end()).status == 200
            values = await metrics(made)
            counts = made.ring.holder.totals.counts
            session = made.ring.holder.session
            assert session is not None
            assert values["gardener_generation_tokens_total", "tiny"] == 16 == counts.emitted
            prompt = 2 * len(PROMPT.split())
            assert values["gardener_prompt_tokens_total", "tiny"] == prompt
            assert values["gardener_time_to_first_token_seconds_count", "tiny"] == 2
            assert values["gardener_request_queue_time_seconds_count", "tiny"] == 2
            assert values["gardener_request_success_total", "length", "tiny"] == 2
            assert values["gardener_rows_total", "tiny"] == counts.rows > 0
            assert values["gardener_ring_up",] == 1
            asked = ("gardener_http_requests_total", "POST", "/v1/completions", "200")
            assert values[asked] == 2
            last = caplog.records[-1]
            assert fields(last) == {
                "method": "POST",
                "path": "/v1/completions",
                "status": 200,
                "prompt_tokens": len(PROMPT.split()),
                "tokens": 8,
                "finish": "length",
                "request": session.number,
            }
            assert last.getMessage().startswith("POST /v1/completions 200 in ")
            assert last.getMessage().endswith(" s, 8 tokens (length), request 2")
            assert len(caplog.records) == 2

    run(scenario)


def test_who_goes_away_is_an_abort(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with served() as made:
            release = made.hold()
            with caplog.at_level(logging.INFO, NAME):
                call = made.complete(stream=True, max_tokens=100)
                await until(lambda: made.ring.holder.admission.running)
                call.leave()
                await until(call.task.done)
            release()
            assert await made.freed()
            values = await metrics(made)
            assert values["gardener_request_success_total", "abort", "tiny"] == 1
            assert values["gardener_num_requests_running", "tiny"] == 0
            assert fields(caplog.records[-1])["finish"] == "abandoned"

    run(scenario)


def test_labels_and_lines_are_bounded_whatever_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with served() as made:
            with caplog.at_level(logging.INFO, NAME):
                for path in ("/a\x1b[2Jb", "/" + "x" * 5000, "/v1/models/none"):
                    assert (await made.get(path)).status == 404
                assert (await made.call("BREW", "/coffee").end()).status in (404, 405)
                assert (await made.get("/health")).status == 200
            steering, long, model, brew = (each.getMessage() for each in caplog.records)
            assert steering.startswith("GET /a?[2Jb 404 in ")
            assert len(long) < 250
            assert model.startswith("GET /v1/models/none 404")
            assert brew.startswith("BREW /coffee 40")
            values = await metrics(made)
            found = {key[1:] for key in values if key[0] == "gardener_http_requests_total"}
            assert ("GET", "other", "404") in found
            assert ("GET", "/v1/models/", "404") in found
            assert {method for method, _, _ in found} == {"GET", "other"}

    run(scenario)


def test_metrics_need_the_key_as_all_that_tells_of_the_ring(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with served(api_key="secret") as made:
            with caplog.at_level(logging.INFO, NAME):
                assert (await made.get("/metrics")).status == 401
                assert (await made.get("/health")).status == 200
            assert [fields(each)["status"] for each in caplog.records] == [401]
            values = await metrics(made, authorization="Bearer secret")
            assert values["gardener_http_requests_total", "GET", "/metrics", "401"] == 1

    run(scenario)


def test_without_a_ring_the_metrics_say_so() -> None:
    async def scenario() -> None:
        async with served(stands=False) as made:
            values = await metrics(made)
            assert values["gardener_ring_up",] == 0
            assert values["gardener_num_requests_running", "tiny"] == 0
            assert not [key for key in values if key[0] == "gardener_peer_up"]

    run(scenario)


def test_several_requests_each_have_a_line_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with served() as made:
            with caplog.at_level(logging.INFO, NAME):
                calls: list[Call] = [made.complete(max_tokens=3 + n) for n in range(3)]
                await asyncio.gather(*(call.end() for call in calls))
            told = {record.__dict__["tokens"] for record in caplog.records}
            assert told == {3, 4, 5}
            assert len({record.__dict__["request"] for record in caplog.records}) == 3

    run(scenario)


def test_every_route_has_a_label_of_its_own_or_its_folder() -> None:
    async def scenario() -> None:
        async with served(stands=False) as made:
            for each in made.app.routes:
                assert isinstance(each, Route)
                label = route(each.path)
                assert label != OTHER
                assert label == each.path or label.endswith("/")

    run(scenario)
