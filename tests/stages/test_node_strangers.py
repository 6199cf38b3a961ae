"""Strangers at the ring's port of a node: each is told what is wrong, and nobody else pays."""

import asyncio
import os

import pytest
from loopback import holding, ring, run, truth, until, write
from strangers import HELLO, STRANGERS, asked, idle, reason

from gardener.net import listen


@pytest.mark.parametrize(("sent", "said"), STRANGERS.values(), ids=STRANGERS.keys())
def test_a_stranger_is_told_and_the_ring_goes_on(sent: bytes, said: str) -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            asking = asyncio.create_task(write(holder))
            for stage in (1, 2):
                assert said in reason(await asked(made.address(stage), sent))
                assert any(said in line for line in made.seats[stage].said)
                before = len(made.seats[stage].said)
                await asked(made.address(stage), sent)  # once more: that is no news
                assert len(made.seats[stage].said) == before
            assert await asking == truth()

    run(scenario)


def test_a_thousand_idle_connections_cost_nobody_anything() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            before = files()
            with idle(made.address(1)) as socks:
                assert len(socks) > 900
                assert await write(holder) == truth()
                await until(lambda: files() <= before + len(socks) + listen.GREETINGS)
                assert await write(holder) == truth()
            await until(lambda: files() <= before)
            pushed = [line for line in made.seats[1].said if "pushed out by newer ones" in line]
            assert len(pushed) == 1  # not a thousand

    run(scenario)


def test_who_sends_a_byte_a_moment_keeps_nobody_out() -> None:
    """A frame that never ends is cut off with the greeting's deadline, or by those who come."""

    async def scenario() -> None:
        async with ring(1) as made:
            await until(lambda: made.seats[1].said)  # it listens
            slow = [await asyncio.open_connection(*made.address(1)) for _ in range(40)]
            for byte in HELLO[:20]:
                for _, writer in slow:
                    if not writer.is_closing():
                        writer.write(bytes([byte]))
                await asyncio.sleep(0.001)
            async with holding(made) as holder:
                assert await write(holder) == truth()
            for reader, writer in slow:
                writer.transport.abort()
                await asyncio.gather(reader.read(), return_exceptions=True)

    run(scenario)


def files() -> int:
    """Open ones of this process."""
    return len(os.listdir("/dev/fd"))


def test_addresses_are_named_without_the_port_of_the_stranger() -> None:
    """So that the next one from there is no news."""

    async def scenario() -> None:
        async with ring(1) as made:
            await until(lambda: made.seats[1].said)  # it listens
            await asked(made.address(1), bytes(4))
            (line,) = [line for line in made.seats[1].said if "length zero" in line]
            assert line == "the peer at 127.0.0.1 broke the protocol: a frame of length zero"

    run(scenario)
