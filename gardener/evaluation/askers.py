"""Asks many prompts at once through one ring; see `concurrency` for what is made of the answers.

Every answer is compared with the one to the same prompt asked alone: a ring may become slower when
others use it, and nothing else.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from gardener.evaluation.concurrency import Load, LoadAnswer
from gardener.evaluation.plan import Plan
from gardener.evaluation.results import Difference, Failure, Results, failures_of
from gardener.evaluation.runner import (
    RECORDS,
    MeasuredRing,
    Question,
    check,
    compare,
    keep,
    rotated,
    weighed,
)
from gardener.holder.answer import Answer, answer, uninterrupted
from gardener.runtime import clock


class LoadListener(Protocol):
    """Is told how it goes."""

    def say(self, line: str) -> None: ...

    def expects(self, answers: int) -> None:
        """So many more are going to be asked for."""

    def answered(self, place: str, policy: str, requests: int) -> None:
        """One of them is there."""

    def loaded(self) -> None:
        """The ring has nothing to do for a moment."""

    def differed(self, difference: Difference) -> None: ...

    def failed(self, failure: Failure) -> None: ...


async def measure_loads(
    ring: MeasuredRing,
    plan: Plan,
    asked: Sequence[Question],
    results: Results,
    listener: LoadListener,
) -> None:
    """For each number of requests in the plan, ask what was `asked` alone before, under every
    policy, `repeat` times. The policy that goes first changes each time.

    Raises GardenerError when the ring broke.
    """
    known = [question for question in asked if question.prompt in results.written]
    levels = [level for level in plan.levels if level > 1] if known else []
    lists = {level: _enough(known, level) for level in levels}
    for level, questions in lists.items():
        if len(questions) > len(known):
            listener.say(
                f"{ring.place}: {len(known)} prompts for {level} requests at once: each of them is "
                f"asked {len(questions) // len(known)} times"
            )
    each = sum(map(len, lists.values()))
    listener.expects(each * len(plan.policies) * plan.repeat)
    round_ = 0
    for repeat in range(1, plan.repeat + 1):
        for level, questions in lists.items():
            for name in rotated(plan.policies, round_):
                await _load(ring, plan, (name, level, repeat), questions, results, listener)
            round_ += 1


def _enough(questions: Sequence[Question], requests: int) -> list[Question]:
    """The questions, all of them as often as it takes to have one for each request."""
    return [*questions] * -(-requests // len(questions))


async def _load(
    ring: MeasuredRing,
    plan: Plan,
    what: tuple[str, int, int],
    questions: Sequence[Question],
    results: Results,
    listener: LoadListener,
) -> None:
    """One load; `what`: its policy, number of requests and repetition. What was answered is kept
    and compared even if an exception ends this."""
    name, requests, _ = what
    ring.holder.trace.restart(RECORDS)
    left, found = deque(questions), list[tuple[Question, float, Answer]]()
    began = clock.now()

    async def asker() -> None:
        while left:
            question, asked = left.popleft(), clock.now() - began
            wanted = ring.wanted(question.tokens, plan.new_tokens)
            policy = ring.policy(name)
            got = uninterrupted(await answer(ring.holder, ring.prompter, policy, wanted))
            found.append((question, asked, got))
            listener.answered(str(ring.place), name, requests)
            if not got.stands:
                left.clear()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(requests):
                group.create_task(asker())
    except BaseException:
        for _, differences in _over(ring, plan, what, began, found, results, listener):
            keep(differences, results, listener)
        raise
    for question, differences in _over(ring, plan, what, began, found, results, listener):
        keep(await weighed(ring, question, differences, results), results, listener)
    for _, _, got in found:
        check(got)
    listener.loaded()


def _over(
    ring: MeasuredRing,
    plan: Plan,
    what: tuple[str, int, int],
    began: float,
    found: Sequence[tuple[Question, float, Answer]],
    results: Results,
    listener: LoadListener,
) -> list[tuple[Question, list[Difference]]]:
    """Keep a load, report what failed, and compare the answers with those to the same prompts
    alone."""
    name, requests, repeat = what
    seconds = clock.now() - began
    answers = [
        LoadAnswer.of(question.prompt, asked, got.figures, got.reason, got.error)
        for question, asked, got in found
    ]
    load = Load(str(ring.place), name, requests, repeat, seconds, tuple(answers))
    results.loads.append(load)
    for failure in failures_of(load):
        listener.failed(failure)
    whole = [(question, got) for question, _, got in found if not got.error]
    return [
        (question, compare(ring, question, plan.policies, [(name, got)], results, requests))
        for question, got in whole
    ]
