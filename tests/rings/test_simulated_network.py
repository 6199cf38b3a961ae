"""Connections in memory: exact times, order, flow control, and every way to end."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from gardener.rings.simulate.loop import Loop
from gardener.rings.simulate.network import (
    LinkConditions,
    SimulatedNetwork,
    SimulatedTransport,
    Wire,
)

SLOW = LinkConditions(delay=0.01, bandwidth=1000.0)
"""10 ms, and 1 ms for each byte."""

Made = tuple["Ear", "Ear"]


class Ear(asyncio.Protocol):
    """Notes what it is told, and when."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, bytes]] = []
        self.told: list[str] = []
        self.error: Exception | None = None
        self.half = False  # stay open when the other end is done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimulatedTransport)
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.heard.append((now(), data))

    def eof_received(self) -> bool:
        self.told.append("end")
        return self.half

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.error = exc

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append(f"resume {now():.3f}")


def now() -> float:
    return round(asyncio.get_running_loop().time(), 6)


def run(
    scenario: Callable[[Ear, Ear], Awaitable[None]],
    conditions: LinkConditions = SLOW,
    seed: int = 0,
) -> Made:
    """A connection between two ears, on a loop of its own."""
    near, far = Ear(), Ear()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        loop.network = SimulatedNetwork(conditions, seed)
        await loop.create_server(lambda: far, "oak", 7000)
        await loop.create_connection(lambda: near, "oak", 7000)
        await scenario(near, far)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
    return near, far


def test_a_connection_takes_the_way_there_and_back() -> None:
    async def scenario(near: Ear, far: Ear) -> None:
        assert now() == 0.02
        assert far.told == near.told == ["made"]
        assert near.transport.get_extra_info("peername") == ("oak", 7000)
        assert far.transport.get_extra_info("peername")[0] == "oak"

    run(scenario)


def test_bytes_come_after_delay_and_size_and_wait_for_each_other() -> None:
    async def scenario(near: Ear, far: Ear) -> None:
        near.transport.write(b"12345")  # leaves until 25 ms
        near.transport.write(b"123")  # and this one until 28 ms
        far.transport.write(b"1")  # the other direction is free
        await asyncio.sleep(0.1)

    near, far = run(scenario)
    assert far.heard == [(0.035, b"12345"), (0.038, b"123")]
    assert near.heard == [(0.031, b"1")]


def test_an_idle_wire_is_free_again() -> None:
    wire = Wire(SLOW, Random(0))
    assert wire.send(0.0, 5) == (0.005, 0.015)
    assert wire.send(1.0, 5) == pytest.approx((1.005, 1.015))


def test_jitter_is_drawn_from_the_seed_and_keeps_the_order() -> None:
    conditions = LinkConditions(delay=0.01, jitter=0.05)

    async def scenario(near: Ear, far: Ear) -> None:
        for number in range(50):
            near.transport.write(bytes([number]))
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)

    heard = [run(scenario, conditions, seed)[1].heard for seed in (1, 1, 2)]
    assert heard[0] == heard[1] != heard[2]
    assert [data[0] for _, data in heard[0]] == list(range(50))
    late = [at - 0.02 - 0.001 * number for number, (at, _) in enumerate(heard[0])]
    assert min(late) >= 0.01 - 1e-6
    assert 0.05 < max(late) <= 0.06 + 1e-6


def test_nobody_listens() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        loop.network = SimulatedNetwork(SLOW)
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Ear, "oak", 7000)
        assert now() == 0.02
        server = await loop.create_server(Ear, "oak", 7000)
        assert server.sockets[0].getsockname() == ("oak", 7000)
        with pytest.raises(OSError, match="in use"):
            await loop.create_server(Ear, "oak", 7000)
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Ear, "oak", 7000)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def test_who_gives_up_while_it_dials_leaves_nothing() -> None:
    far = Ear()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        loop.network = SimulatedNetwork(SLOW)
        await loop.create_server(lambda: far, "oak", 7000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.015):
                await loop.create_connection(Ear, "oak", 7000)
        await asyncio.sleep(0)
        assert far.told == ["made", "lost"]

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def test_closing_delivers_what_was_written() -> None:
    async def scenario(near: Ear, far: Ear) -> None:
        near.transport.write(b"12")
        near.transport.close()
        near.transport.write(b"too late")
        assert near.transport.is_closing()
        await asyncio.sleep(1)

    near, far = run(scenario)
    assert near.told == ["made", "lost"]
    assert far.told == ["made", "end", "lost"]
    assert far.heard == [(0.032, b"12")]
    assert near.error is far.error is None


def test_one_direction_may_end_before_the_other() -> None:
    async def scenario(near: Ear, far: Ear) -> None:
        far.half = True
        near.transport.write_eof()
        await asyncio.sleep(0.02)
        far.transport.write(b"1")
        far.transport.close()
        await asyncio.sleep(1)

    near, far = run(scenario)
    assert near.heard == [(0.051, b"1")]
    assert near.told == ["made", "end", "lost"]
    assert far.told == ["made", "end", "lost"]


def test_a_reset_breaks_both_ends() -> None:
    async def scenario(near: Ear, far: Ear) -> None:
        near.transport.reset()
        await asyncio.sleep(1)

    near, far = run(scenario)
    assert near.told == far.told == ["made", "lost"]
    assert isinstance(near.error, ConnectionResetError)
    assert isinstance(far.error, ConnectionResetError)


def test_a_cut_wire_says_nothing() -> None:
    async def scenario(near: Ear, far: Ear) -> None:
        near.transport.write(b"1")  # under way when it is cut
        near.transport.wire.whole = False
        near.transport.write(b"2")
        far.transport.write(b"3")
        await asyncio.sleep(1)

    near, far = run(scenario)
    assert far.heard == []
    assert [data for _, data in near.heard] == [b"3"]
    assert near.told == far.told == ["made"]


def test_a_protocol_that_does_not_read_gets_it_later() -> None:
    async def scenario(near: Ear, far: Ear) -> None:
        far.transport.pause_reading()
        near.transport.write(b"1")
        await asyncio.sleep(1)
        assert far.heard == []
        far.transport.resume_reading()
        await asyncio.sleep(0)

    assert run(scenario)[1].heard == [(1.02, b"1")]


def test_too_much_to_send_pauses_the_writer_until_most_has_left() -> None:
    async def scenario(near: Ear, far: Ear) -> None:
        near.transport.set_write_buffer_limits(high=100)
        near.transport.write(b"x" * 90)
        near.transport.write(b"x" * 60)
        near.transport.write(b"x" * 20)
        assert near.transport.get_write_buffer_size() == 170
        await asyncio.sleep(1)
        assert near.transport.get_write_buffer_size() == 0

    assert run(scenario)[0].told == ["made", "pause", "resume 0.170"]


def test_a_protocol_that_fails_loses_its_connection() -> None:
    class Broken(Ear):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError

    near, far = Ear(), Broken()
    complaints: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
        loop.network = SimulatedNetwork(SLOW)
        await loop.create_server(lambda: far, "oak", 7000)
        await loop.create_connection(lambda: near, "oak", 7000)
        near.transport.write(b"1")
        await asyncio.sleep(1)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
    assert complaints == ["a protocol failed"]
    assert far.told == ["made", "lost"]
    assert near.told == ["made", "end", "lost"]
