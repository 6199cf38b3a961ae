"""What is refused, and how."""

import asyncio
from threading import current_thread
from typing import Any

import pytest
from loopback import run, until
from served import CHAT, MODEL, served

from gardener.holder.prompter import Prompter


def test_what_is_wrong_with_a_request_is_said_in_the_envelope() -> None:
    async def scenario() -> None:
        async with served() as made:
            chat = "/v1/chat/completions"
            good = {"model": MODEL, "messages": CHAT}
            cases = [
                ("POST", chat, {**good, "model": "gpt-4"}, 404, "model", "model_not_found"),
                ("POST", chat, {**good, "temperature": -1}, 400, "temperature", None),
                ("POST", chat, {**good, "temperature": "hot"}, 400, "temperature", None),
                ("POST", chat, {**good, "n": 2}, 400, "n", "unsupported_value"),
                ("POST", chat, {"model": MODEL}, 400, "messages", None),
                ("POST", chat, b"{", 400, None, "invalid_json"),
                ("POST", chat, b"[]", 400, None, "invalid_json"),
                ("POST", chat, b"\xff", 400, None, "invalid_json"),
                ("POST", "/v1/nothing", good, 404, None, "unknown_path"),
                ("POST", chat + "/", good, 404, None, "unknown_path"),
                ("GET", chat, b"", 405, None, "method_not_allowed"),
                ("POST", "/v1/models", b"", 405, None, "method_not_allowed"),
                ("GET", "/v1/models/gpt-4", b"", 404, "model", "model_not_found"),
            ]
            for method, path, body, status, param, code in cases:
                call = await made.call(method, path, body).end()
                assert call.status == status, (path, body, call.data)
                assert call.headers["content-type"] == "application/json"
                assert (call.error["param"], call.error["code"]) == (param, code)
                assert call.error["type"] == "invalid_request_error"
            call = await made.call("POST", chat, good, content_type="text/plain").end()
            assert call.status == 415
            allowed = (await made.get(chat)).headers["allow"]
            assert allowed == "POST"
            assert not made.ring.holder.admission.sessions

    run(scenario)


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers() -> None:
    async def scenario() -> None:
        async with served() as made:
            call = await made.complete(prompt="w1 " * 300).end()
            assert call.status == 400
            assert call.error["code"] == "context_length_exceeded"
            assert "300 tokens" in call.error["message"]
            assert "256" in call.error["message"]

    run(scenario)


def test_when_the_queue_is_full_it_says_when_to_come_back() -> None:
    async def scenario() -> None:
        async with served(max_requests=1, queue=1) as made:
            release = made.hold()
            calls = [made.complete()]
            await until(lambda: made.ring.holder.admission.running)
            calls.append(made.complete())
            await until(lambda: made.ring.holder.admission.waiting)
            refused = await made.complete(stream=True).end()
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.error["type"] == "rate_limit_error"
            assert refused.error["code"] == "queue_full"
            unread = await made.call("POST", "/v1/completions", b"{").end()
            assert unread.status == 429, "nothing is read of what cannot be taken"
            release()
            await asyncio.gather(*(call.end() for call in calls))
            assert [call.status for call in calls] == [200, 200]

    run(scenario)


@pytest.mark.parametrize("path", ["/ready", "/v1/completions"])
def test_without_a_ring_it_says_what_is_missing(path: str) -> None:
    async def scenario() -> None:
        async with served(stands=False) as made:
            call = made.complete() if path != "/ready" else made.call("GET", path)
            await call.end()
            assert call.status == 503
            assert call.error["message"] == "stage 2 is missing"
            assert int(call.headers["retry-after"]) >= 1
            assert (await made.get("/health")).status == 200
            assert (await made.get("/v1/models")).json["data"][0]["id"] == MODEL

    run(scenario)


def test_once_it_ends_it_takes_no_requests() -> None:
    async def scenario() -> None:
        async with served() as made:
            made.house.closing.set()
            for call in (made.complete(), made.call("GET", "/ready")):
                await call.end()
                assert call.status == 503
                assert call.error["code"] == "shutting_down"

    run(scenario)


def test_what_is_served_is_told() -> None:
    async def scenario() -> None:
        async with served() as made:
            one = (await made.get(f"/v1/models/{MODEL}")).json
            assert one == (await made.get("/v1/models")).json["data"][0]
            assert one["id"] == MODEL
            assert one["max_model_len"] == made.ring.prompter.context
            assert (await made.get("/version")).json["version"]

    run(scenario)


def test_a_long_body_is_read_beside_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt of some megabytes takes seconds to read; the holder must not be silent for them."""

    chat, threads = Prompter.chat, list[str]()

    def told(*given: Any) -> list[int]:
        threads.append(current_thread().name)
        return chat(*given)

    monkeypatch.setattr(Prompter, "chat", told)

    async def scenario() -> None:
        async with served() as made:
            call = await made.chat(messages=[{"role": "user", "content": "w1 " * 5000}]).end()
            assert call.error["code"] == "context_length_exceeded"
            assert (await made.chat().end()).status == 200
            assert [name == current_thread().name for name in threads] == [False, True]

    run(scenario)
