"""The server ends: answers may finish for a while, and what does not is ended honestly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from loopback import run, until
from served import MODEL, Served, served

from gardener.rings.settings import RingSettings
from gardener.serve import server as server_module
from gardener.serve.settings import ServeSettings

LONG = 200  # tokens


@asynccontextmanager
async def serving(
    made: Served, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator["asyncio.Task[None]"]:
    """The server with the ring and the application of `made`; its calls are not over a socket."""

    class Keeper:
        def __init__(self, *_: Any) -> None: ...

        async def run(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(server_module, "RingKeeper", Keeper)
    monkeypatch.setattr(server_module, "House", lambda *_: made.house)
    monkeypatch.setattr(server_module, "make_app", lambda _: made.app)
    said: list[str] = []
    settings = ServeSettings(port=0, name=MODEL)
    task = asyncio.create_task(
        server_module.serve(settings, RingSettings(local=1), said.append, said.append)
    )
    await until(lambda: said)
    assert said[0].startswith("listening on http://127.0.0.1:")
    yield task
    with pytest.raises(asyncio.CancelledError):
        await task


def test_answers_may_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with served(grace=20.0) as made:
            async with serving(made, monkeypatch) as task:
                release = made.hold()
                calls = [made.complete(stream=True), made.complete()]
                await until(lambda: len(made.house.answers) == 2)
                task.cancel()
                await until(made.house.closing.is_set)
                late = await made.complete().end()
                assert (late.status, late.error["code"]) == (503, "shutting_down")
                assert not task.done()
                release()
            text = await made.text()
            streamed, whole = [await call.end() for call in calls]
            assert streamed.events[-1] == "[DONE]"
            assert whole.json["choices"][0]["text"] == text

    run(scenario)


def test_who_will_not_wait_for_them_ends_them_honestly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with served(grace=20.0) as made:
            async with serving(made, monkeypatch) as task:
                release = made.hold()
                call = made.complete(stream=True, max_tokens=LONG)
                await until(lambda: made.house.answers)
                task.cancel()
                await until(made.house.closing.is_set)
                await asyncio.sleep(0)
                task.cancel()
                *_, last, error = (await call.end()).events
                release()
            assert last["choices"][0]["finish_reason"] == "error"
            assert error["error"]["code"] == "shutting_down"
            assert await made.freed()

    run(scenario)


def test_what_takes_too_long_is_ended_honestly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with served(grace=0.0) as made:
            async with serving(made, monkeypatch) as task:
                release = made.hold()
                calls = [made.complete(stream=True, max_tokens=LONG), made.complete()]
                await until(lambda: len(made.house.answers) == 2)
                task.cancel()
                streamed, whole = [await call.end() for call in calls]
                release()
            *_, last, error = streamed.events
            assert last["choices"][0]["finish_reason"] == "error"
            assert error["error"]["message"] == "the server is shutting down"
            assert error["error"]["code"] == "shutting_down"
            assert (whole.status, whole.error["code"]) == (503, "shutting_down")
            assert await made.freed()

    run(scenario)
