"""Strangers at the ring's port of a holder."""

import asyncio

import pytest
from loopback import holding, ring, run, truth, until, write
from strangers import STRANGERS, asked, idle, reason


@pytest.mark.parametrize(("sent", "said"), STRANGERS.values(), ids=STRANGERS.keys())
def test_a_stranger_is_told_and_the_answer_goes_on(sent: bytes, said: str) -> None:
    async def scenario() -> None:
        async with ring(1) as made, holding(made) as holder:
            asking = asyncio.create_task(write(holder))
            assert said in reason(await asked(made.address(0), sent))
            await until(lambda: any(said in line for line in made.said))
            assert await asking == truth()

    run(scenario)


def test_a_thousand_idle_connections_cost_no_answer_anything() -> None:
    async def scenario() -> None:
        async with ring(1) as made, holding(made) as holder:
            with idle(made.address(0)):
                assert await write(holder) == truth()
            assert await write(holder) == truth()

    run(scenario)
