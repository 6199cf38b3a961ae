"""Requests that begin with the tokens of others, over a ring of real links."""

import asyncio
import random
from collections.abc import Sequence

import fakes
import loopback
import pytest
from loopback import holding, limits, ring, run, until

from gardener.decoding.policy import Bounds, make
from gardener.draft.ngram import NGram
from gardener.errors import UserError
from gardener.holder.holder import Holder
from gardener.holder.kept import LEAST_ROWS
from gardener.holder.session import Session

SYSTEM = tuple(random.Random(1).choices(range(5), k=40))
"""What several prompts begin with."""


def begin(holder: Holder, prompt: Sequence[int], tokens: int = 20) -> Session:
    return holder.open(prompt, make("gardener", Bounds(rows=6)), limits(tokens), 8)


async def written(session: Session) -> list[int]:
    return [token async for piece in session for token in piece.tokens]


def alone(prompt: Sequence[int], tokens: int = 20) -> list[int]:
    return fakes.plain(prompt, limits(tokens))[0]


def read_by_stages(session: Session) -> int:
    """Rows of the prompt that were sent for it."""
    items = list(session._owner.trace)
    first = len(session.speculation.prompt) - 1
    sent = [r.items for r in items if r.what == "sent" and r.request == session.request]
    return sum(node < first for ids in sent for node in ids)


def test_the_next_turn_reads_its_own_tokens_alone() -> None:
    async def scenario() -> None:
        async with ring(3) as made, holding(made, drafters=[NGram()], keep=True) as holder:
            text: list[int] = list(SYSTEM)
            for turn in range(4):
                question = [turn % 5, 3, 1]
                kept = len(text) - 1 if turn else 0  # of the last token nobody has computed a row
                text += question
                session = begin(holder, text)
                answer = await written(session)
                assert answer == alone(text)
                assert session.speculation.prefix is None or turn
                assert read_by_stages(session) <= len(text) - 1 - kept + (turn > 0)
                text += answer
            await until(made.quiet)
            kept_now = [seat.node.scheduler.kept for seat in made.seats.values()]
            assert all(len(each) == 1 for each in kept_now), "older turns are part of newer ones"

    run(scenario)


def test_a_common_beginning_is_computed_once_while_both_run() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made, drafters=[NGram()], keep=True) as holder:
            first = begin(holder, (*SYSTEM, 1, 2), tokens=60)
            async for _ in first:
                break
            prompts = [(*SYSTEM, n, 4, n) for n in (0, 2, 3, 4)]
            others = [begin(holder, prompt) for prompt in prompts]
            found = await asyncio.gather(*map(written, others))
            assert found == [alone(prompt) for prompt in prompts]
            shared = [session.speculation.prefix for session in others]
            assert [prefix and prefix[1] for prefix in shared] == [len(SYSTEM)] * 4
            assert read_by_stages(first) == len(SYSTEM) + 1
            assert [read_by_stages(session) for session in others] == [2] * 4
            await written(first)
            assert first.tokens == alone((*SYSTEM, 1, 2), 60)

    run(scenario)


def test_where_nothing_is_kept_nothing_is_taken_from_those_that_run_either() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made, keep=False) as holder:
            first = begin(holder, SYSTEM, tokens=60)
            async for _ in first:
                break
            second = begin(holder, (*SYSTEM, 1))
            assert await written(second) == alone((*SYSTEM, 1))
            assert second.speculation.prefix is None
            await written(first)

    run(scenario)


def test_what_is_too_short_or_differs_is_read_anew() -> None:
    async def scenario() -> None:
        async with ring(1) as made, holding(made, keep=True) as holder:
            short = SYSTEM[: LEAST_ROWS - 1]
            answer = await written(begin(holder, short))
            assert answer == alone(short)
            other = (*short, (answer[0] + 1) % 5, *SYSTEM)
            session = begin(holder, other)
            assert await written(session) == alone(other)
            assert session.speculation.prefix is None

    run(scenario)


def test_one_that_failed_or_never_began_is_not_kept() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made, keep=True) as holder:
            made.seats[2].stage.trouble = lambda: (_ for _ in ()).throw(MemoryError("none"))
            session = begin(holder, SYSTEM)
            with pytest.raises(Exception, match="MemoryError"):
                await written(session)
            made.seats[2].stage.trouble = lambda: None
            holder.admission.max_requests = 0
            begin(holder, SYSTEM).close()
            holder.admission.max_requests = 8
            again = begin(holder, SYSTEM)
            assert await written(again) == alone(SYSTEM)
            assert again.speculation.prefix is None

    run(scenario)


def test_what_cannot_fit_is_refused_and_what_can_later_waits() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made, keep=True) as holder:
            prefixes = holder.admission.prefixes
            one = begin(holder, SYSTEM)
            need = one.speculation.slots
            assert await written(one) == alone(SYSTEM)
            prefixes._room = need
            with pytest.raises(UserError, match=r"memory for the keys and values"):
                begin(holder, SYSTEM, tokens=loopback.CONTEXT)
            prefixes._room = 2 * need - 1  # for one and what is kept of others, not for two
            several = [begin(holder, (n, *SYSTEM)) for n in range(4)]
            assert len(holder.admission.running) == 1
            for n, got in enumerate(await asyncio.gather(*map(written, several))):
                assert got == alone((n, *SYSTEM))
            assert prefixes.used <= 2 * need - 1
            await until(made.quiet)

    run(scenario)
