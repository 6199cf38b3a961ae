"""A ring that breaks in the middle of answers, stands again, and goes on with them.

Real holders, nodes and links on loopback; the stages compute `fakes.target`.
"""

import asyncio
from typing import Any

import msgspec
import pytest
from loopback import PROMPT, Ring, card, holding, limits, ring, run, slow, truth, until, write

from gardener.decoding.policy import POLICIES, Bounds, make
from gardener.errors import LocalError, PeerLost, UserError
from gardener.holder.holder import Holder
from gardener.holder.ring_state import RingState

BOUNDS = Bounds(rows=4, window=3, floor=0.05)


def patient(news: list[str], seconds: float = 20.0) -> dict[str, Any]:
    return {"patience_lost": seconds, "news": news.append}


def slowly(made: Ring) -> None:
    for seat in made.seats.values():
        seat.stage.trouble = slow(0.003)


async def cut(made: Ring, stage: int) -> None:
    """The link from this stage to the next one."""
    link = made.seats[stage].node.downstream
    if link is not None and link._transport is not None:
        link._transport.abort()


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_the_text_is_that_of_an_undisturbed_run(policy: str) -> None:
    async def scenario() -> None:
        news: list[str] = []
        async with ring(3) as made, holding(made, **patient(news)) as holder:
            slowly(made)
            struck = set()

            async def strike(so_far: list[int]) -> None:
                for at, stage in ((5, 2), (12, 1), (20, 3)):
                    if len(so_far) >= at and stage not in struck:
                        struck.add(stage)
                        await made.kill(stage)
                        made.start(stage)

            assert await write(holder, 40, policy=policy, each=strike) == truth(40)
            assert struck == {1, 2, 3}
            assert len(news) == 6
            assert await write(holder, policy=policy) == truth()
            await until(made.quiet)

    run(scenario)


@pytest.mark.parametrize("link", [0, 1, 2, 3])
def test_a_link_that_is_cut_costs_nothing_but_time(link: int) -> None:
    async def scenario() -> None:
        news: list[str] = []
        async with ring(3) as made, holding(made, **patient(news)) as holder:
            slowly(made)
            done: list[int] = []

            async def strike(so_far: list[int]) -> None:
                if len(so_far) >= 8 and not done:
                    done.append(link)
                    if link:
                        await cut(made, link)
                    else:
                        assert holder.ring.downstream is not None
                        assert holder.ring.downstream._transport is not None
                        holder.ring.downstream._transport.abort()

            nodes = [seat.node for seat in made.seats.values()]
            assert await write(holder, 40, each=strike) == truth(40)
            assert "; the request goes on" not in news[0]
            assert news[1].endswith(": the request goes on")
            assert nodes == [seat.node for seat in made.seats.values()]

    run(scenario)


def test_several_requests_go_on_and_those_that_wait_have_their_turn() -> None:
    async def scenario() -> None:
        news: list[str] = []
        options = {**patient(news), "keep": True, "max_requests": 3}
        async with ring(2) as made, holding(made, **options) as holder:
            slowly(made)
            prompts = [(*PROMPT, 7, each) for each in range(1, 6)]
            asked = [asyncio.create_task(write(holder, 30, prompt=each)) for each in prompts]
            await until(lambda: holder.totals.verdicts > 20)
            await made.kill(2)
            await until(lambda: not holder.stands)
            asked.append(asyncio.create_task(write(holder, 12)))  # asked while it is broken
            made.start(2)
            texts = await asyncio.gather(*asked)
            assert texts[:5] == [truth(30, each) for each in prompts]
            assert texts[5] == truth(12)
            assert "requests go on" in news[1]

    run(scenario)


def test_who_waits_is_told_for_what_and_leaves_when_patience_is_over() -> None:
    async def scenario() -> None:
        news: list[str] = []
        async with ring(3) as made, holding(made, **patient(news, 0.6)) as holder:
            slowly(made)
            text: list[int] = []

            async def strike(so_far: list[int]) -> None:
                text[:] = so_far
                if len(so_far) >= 8 and 2 in made.seats:
                    await made.kill(2)
                    await until(lambda: "now: stage 1 is waiting" in holder.condition)
                    assert holder.condition.startswith("stage 2 was lost while it")

            with pytest.raises(PeerLost) as caught:
                await write(holder, 400, each=strike)
            said = str(caught.value)
            assert said.endswith(
                f"; {len(text)} tokens were written; the ring was not whole again within 0.6 s; "
                "start stage 2 again, then repeat the request"
            )
            assert text == truth(400)[: len(text)]
            with pytest.raises(PeerLost):  # nobody waits any more
                await asyncio.wait_for(write(holder), 0.2)
            made.start(2)
            await until(lambda: holder.stands)
            assert holder.condition == ""
            assert await write(holder) == truth()

    run(scenario)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "another"}, "different models"),
        ({"first": 0, "end": 2}, "they overlap"),
        ({"dtype": "float16"}, "float16"),
        ({"longest": 64}, "stage 2 came back with room for requests of 64 tokens, and took any"),
    ],
)
def test_whoever_is_another_in_its_place_is_refused(change: dict[str, object], said: str) -> None:
    async def scenario() -> None:
        news: list[str] = []
        async with ring(3) as made, holding(made, **patient(news)) as holder:
            slowly(made)

            async def strike(so_far: list[int]) -> None:
                if len(so_far) >= 8 and not news:
                    await made.kill(2)
                    made.start(2, msgspec.structs.replace(card(2, 3), **change))
                    await until(lambda: said in holder.condition)
                    await made.end(2)
                    made.start(2)

            assert await write(holder, 30, each=strike) == truth(30)

    run(scenario)


def test_a_consumer_may_leave_while_the_ring_is_broken() -> None:
    async def scenario() -> None:
        news: list[str] = []
        async with ring(2) as made, holding(made, **patient(news)) as holder:
            slowly(made)
            session = holder.open(PROMPT, make("gardener", BOUNDS), limits(400), chunk=3)
            await until(lambda: len(session.tokens) > 5)
            await made.kill(1)
            await until(lambda: news)
            session.close()
            assert await session.read() is not None
            assert (session.finish_reason, holder.admission.sessions) == ("abandoned", ())
            made.start(1)
            await until(lambda: holder.stands)
            assert news[1].endswith(" s")
            assert await write(holder) == truth()
            await until(made.quiet)

    run(scenario)


def test_what_begins_while_stages_have_forgotten_what_is_kept_goes_on_all_the_same() -> None:
    """Stage 1 has lost stage 2 and given all up; the holder hears of the loss, and for a moment
    still believes in what was kept."""

    async def scenario() -> None:
        news: list[str] = []
        prompt = (*PROMPT, *truth(30))
        async with ring(2) as made, holding(made, keep=True, **patient(news)) as holder:
            assert await write(holder, 30) == truth(30)
            await made.kill(2)
            await until(lambda: holder.ring.state is RingState.BROKEN)
            asked = asyncio.create_task(write(holder, 20, prompt=prompt))
            await until(lambda: any("refused" in line for line in made.seats[1].said))
            assert holder.ring.state is RingState.BROKEN
            made.start(2)
            assert await asked == truth(20, prompt)

    run(scenario)


def test_who_leaves_while_the_ring_is_broken_tells_stages_nothing_that_they_have_forgotten() -> (
    None
):
    """An Advance of a request that a stage does not know would be a breach, and break the link."""

    async def scenario() -> None:
        news: list[str] = []
        async with ring(2) as made, holding(made, keep=True, **patient(news)) as holder:
            slowly(made)
            session = holder.open(PROMPT, make("gardener", BOUNDS), limits(400), chunk=3)
            await until(lambda: len(session.tokens) > 5)
            await made.kill(2)
            await until(lambda: news)
            session.speculation._settled.append(session.speculation.tree.root)
            session.close()
            made.start(2)
            await until(lambda: holder.stands)
            assert await write(holder) == truth()
            assert not any("broke the protocol" in line for line in made.seats[1].said)
            assert len(news) == 2

    run(scenario)


def test_counts_and_numbers_are_those_of_the_whole_answer() -> None:
    async def scenario() -> None:
        news: list[str] = []
        async with ring(2) as made, holding(made, **patient(news)) as holder:
            slowly(made)
            session = holder.open(PROMPT, make("gardener", BOUNDS), limits(40), chunk=3)
            first = session.request
            await until(lambda: len(session.tokens) > 5)
            await cut(made, 1)
            assert await session.read() == ""
            assert session.tokens == truth(40)
            assert session.request != first
            counts = session.speculation.counts
            assert (session.number, counts.emitted) == (1, 40)
            assert counts.accepted + counts.missed == 40
            assert (session.prompt, session.speculation.asked) == (PROMPT, len(PROMPT))

    run(scenario)


def test_a_fault_of_ours_while_the_ring_mends_ends_everything_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(self: Holder) -> None:
        raise RuntimeError("planted")

    async def scenario() -> None:
        news: list[str] = []
        async with ring(2) as made, holding(made, **patient(news)) as holder:
            slowly(made)
            monkeypatch.setattr(Holder, "mended", breaks)

            async def strike(so_far: list[int]) -> None:
                if len(so_far) >= 8 and holder.stands:
                    await cut(made, 1)

            with pytest.raises(LocalError, match="RuntimeError at the holder: planted"):
                await write(holder, 400, each=strike)
            assert "planted" in str(await holder.failure())

    run(scenario)


def test_a_ring_that_was_left_stays_so() -> None:
    async def scenario() -> None:
        async with ring(2) as made:
            async with holding(made, **patient([])) as holder:
                assert holder.stands
            assert holder.ring.state is RingState.LEFT
            with pytest.raises(UserError, match="this ring was closed"):
                await write(holder)

    run(scenario)


def test_who_asks_from_elsewhere_hears_of_nobody_else() -> None:
    async def scenario() -> None:
        news: list[str] = []
        async with ring(3) as made, holding(made, **patient(news)) as holder:
            slowly(made)

            async def strike(so_far: list[int]) -> None:
                if len(so_far) >= 8 and not news:
                    await made.kill(2)
                    await until(lambda: "now: " in holder.condition)
                    assert "tokens were written" in news[0]
                    assert "tokens were written" not in holder.condition
                    assert "127.0.0.1" not in holder.condition
                    made.start(2)

            assert await write(holder, 30, each=strike) == truth(30)
            assert holder.condition == holder.ring.obstacle == ""

    run(scenario)


def test_a_request_that_breaks_the_ring_each_time_ends() -> None:
    async def scenario() -> None:
        news: list[str] = []
        async with ring(2) as made, holding(made, **patient(news)) as holder:
            poison = (*PROMPT, 9, 9)

            def dies() -> None:
                if any(session.prompt == poison for session in holder.admission.sessions):
                    link = made.seats[1].node.downstream
                    if link is not None and link._transport is not None:
                        loop.call_soon_threadsafe(link._transport.abort)

            loop = asyncio.get_running_loop()
            made.seats[2].stage.trouble = dies
            with pytest.raises(PeerLost, match="the ring broke 5 times without another tok"):
                await write(holder, 40, prompt=poison)
            assert await write(holder) == truth()

    run(scenario)


def test_a_bug_in_one_request_ends_that_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        news: list[str] = []
        async with ring(2) as made, holding(made, **patient(news)) as holder:
            slowly(made)
            bad = holder.open(PROMPT, make("gardener", BOUNDS), limits(400), chunk=3)
            monkeypatch.setattr(bad, "renew", None)
            good = asyncio.create_task(write(holder, 40))
            await until(lambda: len(bad.tokens) > 5)
            await cut(made, 1)
            assert await good == truth(40)
            with pytest.raises(LocalError, match="TypeError at the holder"):
                await bad.read()

    run(scenario)


def test_what_became_of_a_stage_is_told_as_it_was_when_it_was_lost() -> None:
    fate = ["its process was killed"]

    async def scenario() -> None:
        news: list[str] = []
        options = patient(news) | {"advise": lambda stage: fate[-1]}
        async with ring(2) as made, holding(made, **options) as holder:
            await made.kill(2)
            await until(lambda: news)
            fate.append("its process is there")  # another one, by now
            assert "; its process was killed: up to 20 s are waited" in holder.condition
            assert holder.condition.partition("; now")[0] in news[0]

    run(scenario)
