"""Several sessions over one ring of real links: who runs, who waits, who is refused."""

import asyncio
import random

import fakes
import loopback
import pytest
from loopback import holding, limits, ring, run, truth, until

from gardener.decoding.policy import POLICIES, Bounds, make
from gardener.draft.ngram import NGram
from gardener.errors import Busy, LocalError, PeerLost
from gardener.holder.holder import Holder
from gardener.holder.session import Session


def begin(holder: Holder, policy: str = "gardener", tokens: int = 24) -> Session:
    return holder.open(loopback.PROMPT, make(policy, Bounds(rows=6)), limits(tokens), 3)


async def tokens(session: Session) -> list[int]:
    return [token async for piece in session for token in piece.tokens]


@pytest.mark.parametrize("policy", POLICIES)
def test_requests_at_the_same_time_write_what_each_writes_alone(policy: str) -> None:
    async def scenario() -> None:
        async with ring(3) as made, holding(made, drafters=[NGram()]) as holder:
            prompts = [tuple(random.Random(n).choices(range(5), k=1 + 3 * n)) for n in range(6)]
            sessions = [
                holder.open(prompt, make(policy, Bounds(rows=6)), limits(20 + n), 3)
                for n, prompt in enumerate(prompts)
            ]
            assert len(holder.admission.running) == 6
            found = await asyncio.gather(*map(tokens, sessions))
            for n, (prompt, got) in enumerate(zip(prompts, found, strict=True)):
                assert got == fakes.plain(prompt, limits(20 + n))[0]
            await until(made.quiet)
            assert (len(holder.admission.running), len(holder.admission.waiting)) == (0, 0)

    run(scenario)


def test_those_for_which_there_is_no_room_wait_their_turn_and_the_rest_is_refused() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            holder.admission.max_requests, holder.admission.max_waiting = 2, 1
            first, second, third = (begin(holder) for _ in range(3))
            assert (len(holder.admission.running), len(holder.admission.waiting)) == (2, 1)
            with pytest.raises(Busy, match=r"2 requests run and 1 waits: try again in \d+ s") as no:
                begin(holder)
            assert no.value.retry_after >= 1
            assert await tokens(first) == truth()
            assert await tokens(third) == await tokens(second) == truth()
            assert await tokens(begin(holder)) == truth()
            await until(made.quiet)

    run(scenario)


def test_the_queue_is_bounded_where_memory_is_what_is_short() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            first = begin(holder)
            holder.admission.prefixes._room = first.speculation.slots
            holder.admission.max_waiting = 2
            waiting = [begin(holder) for _ in range(2)]
            assert len(holder.admission.running) == 1
            with pytest.raises(Busy, match=r"1 request runs and 2 wait"):
                begin(holder)
            for session in (first, *waiting):
                assert await tokens(session) == truth()
            assert await tokens(begin(holder)) == truth()

    run(scenario)


def test_one_that_leaves_while_it_waits_was_never_there() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            holder.admission.max_requests = 1
            first, second, third = (begin(holder) for _ in range(3))
            second.close()
            assert (len(holder.admission.running), len(holder.admission.waiting)) == (1, 1)
            assert await tokens(second) == []
            assert second.finish_reason == "abandoned"
            assert await tokens(third) == await tokens(first) == truth()
            await until(made.quiet)

    run(scenario)


def test_one_that_is_left_in_the_middle_makes_room() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            holder.admission.max_requests = 1
            long, short = begin(holder, tokens=400), begin(holder)
            async for _ in long:
                break
            long.close()
            assert await tokens(short) == truth()
            await until(made.quiet)

    run(scenario)


def test_a_ring_that_breaks_ends_all_and_each_is_told_of_its_own() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            holder.admission.max_requests = 2
            running = [begin(holder, tokens=400) for _ in range(2)]
            waiting = begin(holder)
            async for _ in running[0]:
                break
            link = made.seats[2].node.upstream
            assert link is not None
            await link.abort("cut")
            for session in (*running, waiting):
                with pytest.raises(PeerLost):
                    await tokens(session)
                assert session.finish_reason == "lost"
            with pytest.raises(PeerLost):
                begin(holder)

    run(scenario)


def test_drafters_stay_as_long_as_requests_run() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            session = begin(holder)
            with pytest.raises(LocalError, match="while requests run"):
                holder.equip([])
            assert await tokens(session) == truth()
            holder.equip([])

    run(scenario)


def test_a_thousand_requests_leave_nothing_behind() -> None:
    async def scenario() -> None:
        chance = random.Random(0)
        async with ring(2) as made, holding(made, drafters=[NGram()]) as holder:
            await tokens(begin(holder))
            before = len(asyncio.all_tasks())

            async def ask(number: int) -> None:
                session = begin(holder, tokens=chance.randrange(1, 9))
                if number % 5 == 0:
                    async for _ in session:
                        break
                    session.close()
                elif number % 7 == 0:
                    session.close()
                else:
                    await tokens(session)

            for first in range(0, 1000, 20):
                await asyncio.gather(*(ask(first + n) for n in range(20)))
            await until(made.quiet)
            assert (len(holder.admission.running), len(holder.admission.waiting)) == (0, 0)
            assert len(asyncio.all_tasks()) == before
            await until(lambda: not any(seat.stage.caches for seat in made.seats.values()))
            assert not any(seat.node.scheduler._requests for seat in made.seats.values())

    run(scenario)
