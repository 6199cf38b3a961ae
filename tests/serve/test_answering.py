"""What a client gets while an answer comes, and what becomes of the answer if the client goes."""

import asyncio

import pytest
from loopback import run, until
from served import MODEL, PROMPT, served

LONG = 200  # tokens


def test_a_stream_brings_the_text_of_the_ring_in_pieces() -> None:
    async def scenario() -> None:
        async with served() as made:
            call = await made.chat(stream=True, stream_options={"include_usage": True}).end()
            assert call.status == 200
            assert call.headers["content-type"].startswith("text/event-stream")
            assert call.headers["cache-control"] == "no-cache"
            assert call.headers["x-accel-buffering"] == "no"
            *chunks, usage, done = call.events
            assert done == "[DONE]"
            deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
            assert deltas[0]["role"] == "assistant"
            assert "".join(delta.get("content") or "" for delta in deltas) == await made.text()
            reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
            assert reasons == [None] * (len(chunks) - 1) + ["length"]
            assert usage["choices"] == []
            assert usage["usage"]["completion_tokens"] == 8
            assert usage["usage"]["prompt_tokens"] == len(PROMPT.split())
            assert len({chunk["id"] for chunk in (*chunks, usage)}) == 1

    run(scenario)


def test_a_whole_answer_is_the_text_of_the_ring() -> None:
    async def scenario() -> None:
        async with served() as made:
            call = await made.complete().end()
            assert call.status == 200
            assert call.json["model"] == MODEL
            assert call.json["choices"][0]["text"] == await made.text()
            assert call.json["choices"][0]["finish_reason"] == "length"
            assert call.json["usage"]["total_tokens"] == 8 + len(PROMPT.split())

    run(scenario)


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_frees_the_slots(stream: bool) -> None:
    async def scenario() -> None:
        async with served() as made:
            release = made.hold()
            call = made.complete(stream=stream, max_tokens=LONG)
            await until(lambda: made.ring.holder.admission.running)
            call.leave()
            await until(call.task.done)
            release()
            assert await made.freed()
            assert not made.house.answers

    run(scenario)


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_while_waiting_waits_no_more(stream: bool) -> None:
    async def scenario() -> None:
        async with served(max_requests=1) as made:
            release = made.hold()
            first = made.complete()
            await until(lambda: made.ring.holder.admission.running)
            second = made.complete(stream=stream)
            await until(lambda: made.ring.holder.admission.waiting)
            second.leave()
            await until(second.task.done)
            assert not made.ring.holder.admission.waiting
            release()
            assert (await first.end()).status == 200

    run(scenario)


def test_who_waits_hears_something() -> None:
    async def scenario() -> None:
        async with served(keep_alive=0.1, max_requests=1) as made:
            release = made.hold()
            reads = made.complete(stream=True)
            await until(lambda: made.ring.holder.admission.running)
            waits = made.complete(stream=True)
            for call in (reads, waits):
                await call.until(": still under way\n\n")
            release()
            for call in (reads, waits):
                await call.end()
                text = "".join(each["choices"][0]["text"] for each in call.events[:-1])
                assert text == await made.text()

    run(scenario)


def test_a_stream_that_breaks_says_so_and_not_that_it_is_done() -> None:
    async def scenario() -> None:
        async with served() as made:
            call = made.chat(stream=True, max_tokens=LONG)
            await call.until("w")
            await made.nodes.kill(2)
            await call.end()
            assert call.status == 200  # nothing was wrong when it began
            *chunks, error = call.events
            assert chunks[-1]["choices"][0]["finish_reason"] == "error"
            assert "stage 2 was lost" in error["error"]["message"]
            assert error["error"]["code"] == "ring_lost"
            assert call.complete

    run(scenario)


def test_a_whole_answer_that_breaks_keeps_the_text_so_far() -> None:
    async def scenario() -> None:
        async with served() as made:
            text = await made.text(LONG)
            call = made.complete(max_tokens=LONG)
            admission = made.ring.holder.admission
            await until(lambda: any(len(each.tokens) > 3 for each in admission.sessions))
            await made.nodes.kill(2)
            await call.end()
            assert call.status == 503
            assert "retry-after" in call.headers
            assert "stage 2 was lost" in call.error["message"]
            assert call.error["partial"]
            assert text.startswith(call.error["partial"])

    run(scenario)


def test_a_stage_that_fails_fails_the_request_alone() -> None:
    def trouble() -> None:
        raise MemoryError("no memory")

    async def scenario() -> None:
        async with served() as made:
            stage = made.nodes.seats[1].stage
            stage.trouble = trouble
            call = await made.complete().end()
            assert call.status == 500
            assert call.error["code"] == "stage_failed"
            assert call.error["type"] == "server_error"
            assert "no memory" in call.error["message"]
            stage.trouble = lambda: None
            assert (await made.complete().end()).status == 200

    run(scenario)


def test_several_at_once_all_get_their_own() -> None:
    async def scenario() -> None:
        async with served() as made:
            calls = [made.complete(stream=True, max_tokens=40) for _ in range(6)]
            await asyncio.gather(*(call.end() for call in calls))
            texts = {"".join(e["choices"][0]["text"] for e in c.events[:-1]) for c in calls}
            assert texts == {await made.text(40)}

    run(scenario)
