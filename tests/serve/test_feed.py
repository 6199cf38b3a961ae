"""The feed says how the ring is doing, to few, without growing, and to nobody without the key."""

import asyncio
import json
from typing import Any, cast

import msgspec
import pytest
from asgi import Call
from loopback import run
from served import served

from gardener.runtime import clock
from gardener.serve import feed as feeds
from gardener.serve.errors import ApiError
from gardener.serve.feed import Feed
from gardener.serve.keeper import RingKeeper
from gardener.watch.status import ColouredText, HolderStatus


def states(call: Call) -> list[Any]:
    """What each event held, by its kind."""
    found = []
    for block in call.data.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def watching(call: Call, what: str) -> None:
    await call.until(what)
    assert call.status == 200
    assert call.headers["content-type"].startswith("text/event-stream")


def test_a_request_is_seen_from_its_first_segment_to_its_end() -> None:
    async def scenario() -> None:
        async with served() as made:
            call = made.call("GET", "/ring/events")
            await watching(call, '"state":"the ring stands"')
            go = made.hold()
            asked = made.complete(max_tokens=40)
            await watching(call, '"running":1')
            (_, seen), *_ = [each for each in states(call) if each[1].get("running")]
            assert [stage["layers"] for stage in seen["stages"]] == ["0", "1"]
            assert seen["segments"]
            go()
            await asked.end()
            await watching(call, '"state":"done (length)"')
            kind, last = states(call)[-1]
            assert kind == "status"
            assert last["running"] == 0
            assert "".join(text for text, _ in last["text"]) == asked.json["choices"][0]["text"]
            assert last["figures"]["counts"]["emitted"] == 40
            assert last["figures"]["plain"] > 0
            assert all(sent >= accepted for sent, accepted in last["figures"]["depths"])
            once = await made.get("/ring/status")
            assert once.json["state"] == "done (length)"
            call.leave()
            await call.end()
            assert made.house.feed._watching is None  # nothing is watched for nobody

    run(scenario)


def test_without_a_ring_it_says_why_and_goes_on_when_there_is_one() -> None:
    async def scenario() -> None:
        async with served(stands=False) as made, served() as other:
            assert (await made.get("/ring/status")).status == 503
            call = made.call("GET", "/ring/events")
            await watching(call, "stage 2 is missing")
            assert states(call) == [("down", {"why": "stage 2 is missing"})]
            made.keeper.ring = other.ring
            await watching(call, '"state":"the ring stands"')
            made.keeper.ring, made.keeper.why = None, "stage 1 was lost"
            await watching(call, "stage 1 was lost")
            assert [kind for kind, _ in states(call)] == ["down", "status", "down"]
            made.house.feed.close()
            await call.end()

    run(scenario)


def test_only_so_many_may_look_and_others_may_when_they_have_gone() -> None:
    async def scenario() -> None:
        async with served(stands=False) as made:
            made.house.feed = Feed(cast(RingKeeper, made.keeper), most=2)
            calls = [made.call("GET", "/ring/events") for _ in range(2)]
            for call in calls:
                await watching(call, "missing")
            refused = await made.get("/ring/events")
            assert (refused.status, refused.error["code"]) == (503, "too_many_viewers")
            calls[0].leave()
            await calls[0].end()
            await watching(made.call("GET", "/ring/events"), "missing")

    run(scenario)


def test_a_state_that_cannot_be_shown_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feeds, "QUIET", 0.01)

    async def scenario() -> None:
        async with served(stands=False) as made:
            feed, now = made.house.feed, made.house.feed.now

            def broken() -> HolderStatus | None:
                feed.now = now  # type: ignore[method-assign]
                raise RuntimeError("dictionary changed size during iteration")

            feed.now = broken  # type: ignore[method-assign]
            await watching(made.call("GET", "/ring/events"), "stage 2 is missing")

    run(scenario)
    assert "dictionary changed size" in caplog.text


def test_who_asks_for_the_headers_is_no_viewer() -> None:
    async def scenario() -> None:
        async with served() as made:
            call = await made.call("HEAD", "/ring/events").end()
            assert call.status == 200
            assert call.headers["content-type"].startswith("text/event-stream")
            assert made.house.feed._viewers == 0

    run(scenario)


def test_the_key_guards_the_feed_and_not_the_page() -> None:
    async def scenario() -> None:
        async with served(api_key="secret") as made:
            for path in ("/ring/events", "/ring/status"):
                assert (await made.get(path)).status == 401
            assert (await made.get("/ring/status", authorization="Bearer secret")).status == 200
            assert (await made.get("/")).status == 200

    run(scenario)


class Steps:
    """A keeper without a ring, whose reason is another one whenever it is asked."""

    ring = None

    def __init__(self) -> None:
        self.asked, self.often = 0, asyncio.Event()

    @property
    def why(self) -> str:
        self.asked += 1
        if self.asked == 50:
            self.often.set()
        return f"reason {self.asked}"


def test_who_reads_slowly_misses_states_and_gets_the_newest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds, "PERIOD", 0.001)

    async def scenario() -> None:
        keeper = Steps()
        feed = Feed(cast(RingKeeper, keeper))
        feed.join()
        events = feed.events()
        seen = [await anext(events)]
        await keeper.often.wait()
        seen.append(await anext(events))
        assert b"reason 1" in seen[0]
        assert int(seen[1].split(b"reason ")[1].split(b'"')[0]) >= 49
        feed.leave()
        feed.close()
        await asyncio.sleep(0)

    run(scenario)


def test_it_says_that_it_is_alive_where_nothing_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds, "HEARTBEAT", 0.01)

    async def scenario() -> None:
        async with served() as made:
            call = made.call("GET", "/ring/events")
            await watching(call, ": still here")
            assert len(states(call)) <= 2

    run(scenario)


def test_a_state_has_the_end_of_a_long_text() -> None:
    text = (ColouredText("a" * 3000, False), ColouredText("b" * 1000, True))
    assert feeds._end(text) == (ColouredText("a" * 200, False), text[1])
    assert feeds._end(()) == ()


def test_too_many_viewers_are_told_so() -> None:
    feed = Feed(cast(RingKeeper, Steps()), most=0)
    with pytest.raises(ApiError, match="0 viewers watch the ring"):
        feed.join()


def test_a_state_is_plain_values() -> None:
    begun = clock.now()
    status = HolderStatus(elapsed=begun)
    assert msgspec.json.decode(msgspec.json.encode(status), type=HolderStatus) == status
