"""The tools that break rings (`benchmarks/faults/`): a cable does what it is told to, and figures
are those of what happened."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.faults.cable import Cable
from benchmarks.faults.drawn import KINDS, TOGETHER, draw
from benchmarks.faults.flat import Sample, Trend
from benchmarks.faults.holders import Answer
from benchmarks.faults.nodes import free_ports
from benchmarks.faults.trial import gaps
from benchmarks.faults.wires import Condition

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Cable, Streams]]:
    """A cable to one who says back what he hears, and a connection through it."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                writer.write(data)
        except ConnectionError:
            return
        finally:
            writer.close()

    port, there = free_ports(2)
    cable = Cable(port, there)
    async with await asyncio.start_server(echo, "127.0.0.1", there):
        await cable.start()
        streams = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cable, streams
        finally:
            streams[1].close()
            await cable.close()


def through(scenario: Callable[[Cable, Streams], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), echoing() as (cable, streams):
            await scenario(cable, streams)

    asyncio.run(run())


def test_a_cable_carries_all_in_order_slow_or_not() -> None:
    data = bytes(range(256)) * 1000

    async def scenario(cable: Cable, streams: Streams) -> None:
        reader, writer = streams
        slow = asyncio.create_task(cable.slow(0.01, 0.05))
        for start in range(0, len(data), 1000):
            writer.write(data[start : start + 1000])
            await asyncio.sleep(0)
        assert await reader.readexactly(len(data)) == data
        await slow

    through(scenario)


def test_a_cable_that_stalls_keeps_what_was_sent() -> None:
    async def scenario(cable: Cable, streams: Streams) -> None:
        reader, writer = streams
        stall = asyncio.create_task(cable.stall(0.1))
        await asyncio.sleep(0)
        writer.write(b"kept")
        assert await reader.readexactly(4) == b"kept"
        assert stall.done()

    through(scenario)


def test_a_cable_drops_and_resets() -> None:
    async def scenario(cable: Cable, streams: Streams) -> None:
        reader, writer = streams
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        cable.drop()
        assert await reader.read() == b""
        reader, writer = await asyncio.open_connection("127.0.0.1", cable.port)
        writer.write(b"two")
        assert await reader.readexactly(3) == b"two"
        cable.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()

    through(scenario)


def test_a_seed_and_a_number_give_a_fault_again() -> None:
    drawn = [draw(3, number, 3, 64, KINDS) for number in range(400)]
    assert drawn == [draw(3, number, 3, 64, KINDS) for number in range(400)]
    assert drawn != [draw(4, number, 3, 64, KINDS) for number in range(400)]
    kills = [each.blow.place for each in drawn if each.blow.kind == "kill"]
    assert set(kills) == {1, 2, 3}
    both = [each for each in drawn if each.moment == TOGETHER]
    assert both
    for each in both:
        assert each.again is not None
        assert (each.again.kind, each.again.place) != (each.blow.kind, each.blow.place)


def test_how_long_an_answer_was_interrupted() -> None:
    answer = Answer(10.0, times=[11.0, 11.1, 15.0, 15.2])
    assert gaps(answer, began=11.05, whole=14.0) == pytest.approx((3.9, 1.0))
    assert gaps(answer, began=11.05, whole=15.1) == pytest.approx((3.9, 0.0))
    assert gaps(answer, began=10.2, whole=10.5) == pytest.approx((3.9, 3.9))
    assert gaps(answer, began=16.0, whole=17.0) == (0.0, 0.0)


def test_answers_are_compared_token_for_token() -> None:
    right = Answer(0.0, "a b", [1, 2], finish="length")
    assert Answer(0.0, "a b", [1, 2], finish="length").wrong(right) == ""
    assert "from token 1 on" in Answer(0.0, "a c", [1, 3], finish="length").wrong(right)
    assert "from token 1 on" in Answer(0.0, "a", [1], finish="length").wrong(right)
    assert "ANOTHER TEXT" in Answer(0.0, "a", finish="length").wrong(right)
    assert "lost" in Answer(0.0, "a", [1], finish="error", error="lost").wrong(right)


def test_what_grows_is_not_flat() -> None:
    def trend(memory: Callable[[int], float], files: Callable[[int], int]) -> Trend:
        return Trend("x", 1, [Sample(n, memory(n), files(n)) for n in range(100)])

    flat = trend(lambda n: 500 + n % 2, lambda n: 20 + n % 2)
    assert flat.flat
    assert abs(flat.slope) < 1
    grown = trend(lambda n: 500 + n, lambda n: 20)
    assert not grown.flat
    assert grown.slope == pytest.approx(100)
    assert not trend(lambda n: 500, lambda n: 20 + n // 20).flat


def test_conditions_are_told() -> None:
    assert str(Condition()) == "nothing"
    assert str(Condition(0.02, 0.01, 10e6)) == "20 ms, 1 % loss, 10 Mb/s"
    assert Condition(0.02, 0.01, 10e6).netem() == (
        *("delay", "20ms", "loss", "1%"),
        *("rate", "10000000bit"),
    )
