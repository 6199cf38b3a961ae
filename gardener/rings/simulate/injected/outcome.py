"""What came of a case, in figures and for people."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gardener.rings.simulate.injected.case import Case
from gardener.rings.simulate.injected.faults import GUESTS
from gardener.rings.simulate.injected.injector import Injector
from gardener.rings.simulate.injected.oracle import Answer

STANDS_AGAIN = "the ring stands again"
"""With which the holder's news of that begin."""

News = Sequence[tuple[float, str]]
"""What the holder told, and when."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    wrong     sentences; empty: nothing
    struck    the kinds of faults that took place, and when
    right     requests of which all was written
    lost      those that ended with an honest error
    other     those whose consumer left, or whose holder died
    goes_on   for each time that the ring stood again: the kind of fault that was over last, and
              the seconds from then to the next token
    breaks    how often it broke
    restarts  processes that were started again
    seconds   virtual ones
    digest    of all that was written, said, and when
    story     what happened, for people: when, and what
    sends     writes of each machine until its requests were over, from the moment the ring stood
    hears     and pieces that it heard
    """

    case: Case
    wrong: list[str]
    struck: list[str]
    right: int
    lost: int
    other: int
    goes_on: list[tuple[str, float]]
    breaks: int
    restarts: int
    seconds: float
    digest: str
    story: list[tuple[float, str]]
    sends: dict[int, int]
    hears: dict[int, int]


def summed_up(
    case: Case,
    wrong: list[str],
    answers: Sequence[Answer],
    injector: Injector,
    news: News,
    seconds: float,
) -> Outcome:
    """All of it."""
    over = [answer for answer in answers if answer.over]
    told = [(a.tokens, a.times, a.reason, str(a.error)) for a in answers]
    all_told = repr((told, injector.said, news, seconds))
    boundaries, machines = injector.boundaries, range(case.stages + 1)
    return Outcome(
        case=case,
        wrong=wrong,
        struck=[fault.kind for _, fault in injector.struck],
        right=sum(answer.right for answer in over),
        lost=sum(answer.error is not None for answer in over),
        other=sum(answer.left or answer.gone for answer in answers),
        goes_on=list(_going_on(answers, injector, news)),
        breaks=sum(not line.startswith(STANDS_AGAIN) for _, line in news),
        restarts=injector.restarts,
        seconds=seconds,
        digest=hashlib.sha256(all_told.encode()).hexdigest()[:16],
        story=_story(answers, injector, news),
        sends={number: boundaries.count("send", number) for number in machines},
        hears={number: boundaries.count("hear", number) for number in machines},
    )


def _going_on(
    answers: Sequence[Answer], injector: Injector, news: News
) -> Iterator[tuple[str, float]]:
    times = sorted(at for answer in answers for at in answer.times)
    for mended, line in news:
        if not (line.startswith(STANDS_AGAIN) and line.endswith("on")):
            continue  # nobody waited for it
        after = next((at for at in times if at >= mended), None)
        ends = [(at, kind) for at, kind in injector.ends if at <= mended and kind not in GUESTS]
        if after is not None and ends:
            at, kind = max(ends)
            yield kind, after - at


def _story(answers: Sequence[Answer], injector: Injector, news: News) -> list[tuple[float, str]]:
    story = [(at, f"stage {number} says: {line}") for at, number, line in injector.said]
    story += [(at, f"injected: {fault}") for at, fault in injector.struck]
    story += [(at, f"over: {kind}") for at, kind in injector.ends]
    story += [(at, f"the holder says: {line}") for at, line in news]
    for number, answer in enumerate(answers, 1):
        story += [(at, f"request {number} has a piece") for at in answer.times]
        story.append((answer.ended, f"request {number} is over: {answer.error or answer.reason}"))
    return sorted(story)
