"""Long requests, read aside."""

import asyncio
import json
from functools import partial
from threading import Event

import pytest
from loopback import run, until
from served import MODEL, PROMPT, assert_true, served
from starlette.requests import ClientDisconnect
from starlette.types import Message

from gardener.serve.asking import LONG
from gardener.serve.errors import ApiError
from gardener.serve.reading import Readers

PADDED = {"model": MODEL, "prompt": PROMPT, "max_tokens": 1, "user": "x" * LONG}


class Client:
    """One that leaves when it is told to."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}


def test_what_is_read_comes_back_or_fails() -> None:
    async def scenario() -> None:
        readers, client = Readers(), Client()
        assert await readers.read(lambda: 5, client.receive) == 5
        with pytest.raises(ZeroDivisionError):
            await readers.read(lambda: 1 // 0, client.receive)
        await until(lambda: not readers.busy)

    run(scenario)


def test_a_request_whose_client_has_left_is_not_begun() -> None:
    async def scenario() -> None:
        gate, begun = Event(), list[str]()
        readers, clients = Readers(threads=1), {name: Client() for name in "abc"}

        def work(name: str) -> str:
            begun.append(name)
            assert_true(gate.wait(20))
            return name

        tasks = {
            name: asyncio.create_task(readers.read(partial(work, name), client.receive))
            for name, client in clients.items()
        }
        await until(lambda: begun)
        for name in "ab":
            clients[name].gone.set()
            with pytest.raises(ClientDisconnect):
                await tasks[name]
        assert readers.busy == 2  # the first runs to its end
        gate.set()
        assert await tasks["c"] == "c"
        assert begun == ["a", "c"]

    run(scenario)


def test_only_so_many_wait() -> None:
    async def scenario() -> None:
        gate = Event()
        readers = Readers(threads=1, most=2)
        tasks = [
            asyncio.create_task(readers.read(lambda: gate.wait(20), Client().receive))
            for _ in range(2)
        ]
        await until(lambda: readers.busy == 2)
        with pytest.raises(ApiError, match="2 long requests are being read") as caught:
            await readers.read(lambda: 5, Client().receive)
        assert (caught.value.status, caught.value.retry_after) == (429, 1.0)
        gate.set()
        assert await asyncio.gather(*tasks) == [True, True]

    run(scenario)


def test_long_requests_hold_up_neither_the_short_ones_nor_what_opens_the_ring() -> None:
    async def scenario() -> None:
        async with served() as made:
            gate = Event()
            for _ in range(2):
                made.house.readers._pool.submit(gate.wait, 20)
            long = made.call("POST", "/v1/completions", json.dumps(PADDED).encode())
            left = made.call("POST", "/v1/completions", json.dumps(PADDED).encode())
            await until(lambda: made.house.readers.busy == 2)
            assert (await made.complete().end()).status == 200
            assert await asyncio.to_thread(lambda: 5) == 5
            left.leave()
            assert (await left.end()).status == 499
            assert made.house.readers.busy == 1
            gate.set()
            assert (await long.end()).status == 200

    run(scenario)
