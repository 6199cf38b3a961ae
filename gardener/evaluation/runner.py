"""Runs every policy on the same prompts in one ring, in turns, and compares what they write.

All first turns come first, then all second ones, and so on, since a simulated ring must be told all
prompts beforehand and the prompt of a later turn contains the answers before it. Each prompt is run
`repeat` times under all policies. The policy that goes first changes each time, so that a machine
that becomes slower or faster does so for all of them. An answer that a stage could not compute is
kept as a failure, and the others go on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gardener.decoding.policy import Policy
from gardener.errors import GardenerError, UserError
from gardener.evaluation.datasets import Conversation
from gardener.evaluation.near_ties import differs, gap, token_at
from gardener.evaluation.plan import Place, Plan
from gardener.evaluation.repeats import period
from gardener.evaluation.results import Difference, Failure, Prompt, Results, Skipped, Written
from gardener.evaluation.tally import MeasuredRun
from gardener.evaluation.timeline import breakdown, timeline_of
from gardener.holder.answer import Answer, Wanted, answer, uninterrupted
from gardener.holder.holder import Holder
from gardener.holder.prompter import Prompter
from gardener.protocol.messages import Card
from gardener.protocol.sampling import GREEDY, Sampling

WARM = 2
"""The number of prompts that warm a ring up."""

WARM_TOKENS = 32
"""The most tokens of each answer that warms it up."""

RECORDS = 1 << 17
"""The most trace records that are kept of one answer: more than any answer has."""

AROUND = 8
"""The number of tokens that are shown before and after the first one that differs."""


class Listener(Protocol):
    """Is told how the evaluation goes."""

    def ran(self, run: MeasuredRun) -> None: ...

    def skipped(self, what: Skipped, runs: int) -> None:
        """`runs`: the number of answers that this removes from the plan."""

    def differed(self, difference: Difference) -> None: ...

    def failed(self, failure: Failure) -> None: ...


@dataclass(frozen=True)
class MeasuredRing:
    """A ring that is closed. `policy` makes one for an answer, by the name in the plan.

    sampling    how tokens are picked, with the seed: it is the same for every prompt, so that no
                text depends on the order in which they are asked
    ignore_eos  see `Wanted`
    """

    place: Place
    holder: Holder
    prompter: Prompter
    policy: Callable[[str], Policy]
    sampling: Sampling = GREEDY
    ignore_eos: bool = False

    def wanted(self, tokens: Sequence[int], new_tokens: int) -> Wanted:
        """What is asked of it."""
        return Wanted(tokens, new_tokens, sampling=self.sampling, ignore_eos=self.ignore_eos)


@dataclass(frozen=True, slots=True)
class Question:
    conversation: Conversation
    turn: int  # from 1
    tokens: Sequence[int]

    @property
    def prompt(self) -> Prompt:
        return self.conversation.data, self.conversation.line, self.turn


async def measure(
    ring: MeasuredRing, plan: Plan, results: Results, listener: Listener
) -> list[Question]:
    """Ask each prompt of the plan alone, in one ring; returns what was asked. Each answer goes into
    `results` as soon as it is there.

    Raises UserError if no prompt can be asked, and GardenerError when the ring broke.
    """
    round_, asked = 0, list[Question]()
    for turn in range(1, max(len(conversation.turns) for conversation in plan.conversations) + 1):
        questions = list(_questions(ring.prompter, plan, turn, results, listener))
        if not questions:
            break
        tokens = [each.tokens for each in questions]
        ring.holder.prepare(tokens, plan.new_tokens, ring.sampling)
        if turn == 1:
            await _warm_up(ring, plan, questions)
        for question in questions:
            await _ask(ring, plan, question, round_, results, listener)
            round_ += plan.repeat
        asked += questions
    if not asked:
        first = next(iter(results.skipped.values()))
        raise UserError(f"no prompt can be asked; {first}")
    return asked


def _questions(
    prompter: Prompter, plan: Plan, turn: int, results: Results, listener: Listener
) -> Iterator[Question]:
    """What can be asked as this turn; it is the same for every ring and policy."""
    for conversation in plan.conversations:
        if len(conversation.turns) < turn:
            continue
        where = conversation.data, conversation.line
        before = [results.written.get((*where, n)) for n in range(1, turn)]
        texts = [each.text for each in before if each is not None]
        try:
            if len(texts) < turn - 1:
                raise UserError("the turn before it was not answered")
            history = list(zip(conversation.turns, texts, strict=False))
            tokens = prompter.encode(conversation.turns[turn - 1], raw=plan.raw, history=history)
        except UserError as error:
            skipped = Skipped(*where, turn, str(error))
            results.skipped[*where, turn] = skipped
            listener.skipped(skipped, plan.repeat * len(plan.policies))
        else:
            yield Question(conversation, turn, tokens)


async def _warm_up(ring: MeasuredRing, plan: Plan, questions: Sequence[Question]) -> None:
    """Let kernels be compiled, costs measured and caches filled before anything counts."""
    for question in questions[:WARM]:
        few = min(plan.new_tokens, max(WARM_TOKENS, ring.sampling.min_tokens))
        wanted = ring.wanted(question.tokens, few)
        for name in plan.policies:
            got = await answer(ring.holder, ring.prompter, ring.policy(name), wanted)
            check(got)


def check(got: Answer) -> None:
    """Raise GardenerError if the ring broke. What a stage could not compute ends one answer
    only."""
    if got.error and not got.stands:
        raise GardenerError(got.error)


async def _ask(
    ring: MeasuredRing,
    plan: Plan,
    question: Question,
    round_: int,
    results: Results,
    listener: Listener,
) -> None:
    """Every policy, `repeat` times. The texts are compared even if an exception ends this."""
    found: list[tuple[str, Answer]] = []
    try:
        for repeat in range(plan.repeat):
            for name in rotated(plan.policies, round_ + repeat):
                got = await _run(ring, plan, question, name, repeat, results, listener)
                if not got.error:
                    found.append((name, got))
    except BaseException:
        keep(compare(ring, question, plan.policies, found, results), results, listener)
        raise
    different = compare(ring, question, plan.policies, found, results)
    keep(await weighed(ring, question, different, results), results, listener)


class Differing(Protocol):
    """Is told of differences."""

    def differed(self, difference: Difference) -> None: ...


def keep(differences: Sequence[Difference], results: Results, listener: Differing) -> None:
    """Add them to the results, and tell the user."""
    for difference in differences:
        results.differences.append(difference)
        listener.differed(difference)


async def weighed(
    ring: MeasuredRing, question: Question, differences: Sequence[Difference], results: Results
) -> list[Difference]:
    """The same, each with the gap between the two tokens, where one of the rings that wrote them
    says that it is not exact: there it may be no more than a near tie."""
    found = []
    for each in differences:
        near = max(results.near_ties(place) for place in each.places)
        apart = None
        if near:
            agreed = results.written[question.prompt].tokens[: each.token]
            apart = await gap(
                ring.holder, ring.prompter, question.tokens, agreed, each.tokens, ring.sampling
            )
        near_tie = apart is not None and apart < near
        found.append(replace(each, gap=apart, near_tie=near_tie))
    return found


async def _run(
    ring: MeasuredRing,
    plan: Plan,
    question: Question,
    name: str,
    repeat: int,
    results: Results,
    listener: Listener,
) -> Answer:
    holder = ring.holder
    holder.trace.restart(RECORDS)  # of this answer alone
    wanted = ring.wanted(question.tokens, plan.new_tokens)
    got = uninterrupted(await answer(holder, ring.prompter, ring.policy(name), wanted))
    timeline = timeline_of(holder.trace, link_weights(holder.cards))
    place = str(ring.place)
    if not got.error:
        results.timelines.setdefault(place, {}).setdefault(name, timeline)
    data, line, turn = question.prompt
    run = MeasuredRun(
        place=place,
        data=data,
        line=line,
        turn=turn,
        policy=name,
        repeat=repeat + 1,
        figures=got.figures,
        reason=got.reason,
        error=got.error,
        period=period(got.tokens),
        breakdown=breakdown(timeline),
    )
    results.runs.append(run)
    listener.ran(run)
    check(got)
    if got.error:
        listener.failed(results.failures[-1])
    return got


def compare(
    ring: MeasuredRing,
    question: Question,
    policies: Sequence[str],
    found: Sequence[tuple[str, Answer]],
    results: Results,
    requests: int = 1,
) -> list[Difference]:
    """Compare all answers with the first one that the first policy gave in the first ring.
    `requests`: how many were asked at once."""
    if not found:
        return []
    place, prompt = str(ring.place), question.prompt
    if prompt not in results.written:
        name, first = min(found, key=lambda pair: policies.index(pair[0]))
        text = question.conversation.turns[question.turn - 1]
        results.written[prompt] = Written(place, name, text, tuple(first.tokens), first.text)
    right = results.written[prompt]
    differences = []
    for name, got in found:
        at = differs(right.tokens, got.tokens)
        if at is not None:
            about = slice(max(at - AROUND, 0), at + AROUND)
            around = tuple(
                ring.prompter.backend.decode(list(tokens[about]), skip_special_tokens=False)
                for tokens in (right.tokens, got.tokens)
            )
            places, names = (right.place, place), (right.policy, name)
            both = (around[0], around[1])
            tokens = token_at(right.tokens, at), token_at(got.tokens, at)
            differences.append(Difference(*prompt, at, places, names, both, requests, tokens))
    return differences


def rotated(names: Sequence[str], by: int) -> list[str]:
    by %= len(names)
    return [*names[by:], *names[:by]]


def link_weights(cards: Sequence[Card]) -> list[float]:
    """How the time that segments spend on links is shared among these, from the link into stage 1
    to the one into the holder: by the delays that the stages measured. No card tells that of the
    link into stage 1, which counts as the mean of the others."""
    delays = [float(card.delay) for card in cards]
    if not any(delays):
        return [1.0] * (len(cards) + 1)
    mean = sum(delays) / len(delays)
    return [mean, *(delay or mean for delay in delays)]
