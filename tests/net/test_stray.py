"""Rings of real links that hear what is not meant for them, or lose a stage at a chosen moment."""

import asyncio

import msgspec
import pytest
from loopback import Ear, card, holding, ring, run, slow, truth, until, write

from gardener.errors import PeerLost
from gardener.net.listen import listen
from gardener.protocol import messages as m


def stray(nonce: bytes) -> m.Survey:
    """Cards of stages that are no more."""
    names = (msgspec.structs.replace(card(stage, 2), name="gone") for stage in range(3))
    return m.Survey(nonce, tuple(names))


@pytest.mark.parametrize("earlier", [False, True])
def test_a_survey_of_another_time_closes_no_ring(earlier: bool) -> None:
    """Of a holder that is gone, or of this one before it lost stage 1 and found it again."""

    async def scenario() -> None:
        async with ring(2, start=False) as made:
            made.start(2)
            first = Ear()
            listener = await listen(
                made.address(1), card(1, 2), first, admit=lambda _: None, met=first.links.append
            )
            holder = made.holder()
            connecting = asyncio.create_task(holder.connect())
            try:
                await until(lambda: first.of(m.Survey) and made.seats[2].node.downstream)
                (survey, *_) = first.of(m.Survey)
                assert isinstance(survey, m.Survey)
                await listener.close()
                await first.links[0].abort("as if killed")
                await until(lambda: holder.ring.downstream is None)
                last = made.seats[2].node.downstream
                assert last is not None
                last.send(stray(survey.nonce if earlier else bytes(16)))
                await asyncio.sleep(0.05)
                made.start(1)
                assert [each.name for each in await connecting] == ["oak1", "oak2"]
                assert await write(holder) == truth()
            finally:
                connecting.cancel()
                await holder.close()

    run(scenario)


@pytest.mark.parametrize("stages", [1, 2])
def test_a_stage_that_is_lost_while_it_computes_was_computing(stages: int) -> None:
    async def scenario() -> None:
        async with ring(stages) as made, holding(made) as holder:
            victim = made.seats[1]
            victim.stage.trouble = slow(0.3)
            asking = asyncio.create_task(write(holder, policy="plain", prompt=(1,)))
            await until(lambda: victim.node.scheduler.waiting)
            await asyncio.sleep(0.05)
            await made.kill(1)
            with pytest.raises(PeerLost) as caught:
                await asking
            said = str(caught.value)
            assert said.startswith(
                f"stage 1 at {made.address(1)} was lost while it computed segment 0 (1 row), last"
            )
            assert "no token was written yet" in said

    run(scenario)


def test_a_stage_that_is_lost_while_another_computes_was_waiting() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            made.seats[2].stage.trouble = slow(0.3)
            other = made.seats[2]
            asking = asyncio.create_task(write(holder, policy="plain", prompt=(1,)))
            await until(lambda: other.node.scheduler.waiting)
            await asyncio.sleep(0.05)
            await made.kill(1)
            with pytest.raises(PeerLost, match=r"stage 1 at \S+ was lost while it waited for work"):
                await asking

    run(scenario)
