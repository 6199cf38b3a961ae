"""Policies in turns on a ring whose arithmetic is not real, and what is made of their answers."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import fakes
import loopback
import pytest
from loopback import card
from test_results import results
from tokenizers import Tokenizer, decoders, models

from gardener.decoding.policy import Bounds, make
from gardener.errors import GardenerError, UserError
from gardener.evaluation import runner
from gardener.evaluation.datasets import Conversation
from gardener.evaluation.near_ties import differs
from gardener.evaluation.plan import Place, Plan
from gardener.evaluation.results import Difference, Failure, Results, Skipped
from gardener.evaluation.runner import MeasuredRing, link_weights, measure, rotated
from gardener.evaluation.tally import MeasuredRun
from gardener.holder.answer import Answer, Wanted
from gardener.holder.figures import Figures
from gardener.holder.prompter import Prompter
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.runtime.trace import Trace

POLICIES = ("plain", "serial", "gardener")
PLACE = Place("local", 2)


class FakePrompter:
    """A token is a letter: a to j are 0 to 9."""

    context = loopback.CONTEXT
    eos: frozenset[int] = frozenset()

    def __init__(self) -> None:
        words = {chr(ord("a") + token): token for token in range(10)}
        self.backend = Tokenizer(models.WordLevel(words, unk_token="a"))
        self.backend.decoder = decoders.Fuse()
        self.asked: list[tuple[str, list[tuple[str, str]]]] = []

    def encode(self, text: str, *, raw: bool, history: list[tuple[str, str]]) -> list[int]:
        if "too long" in text:
            raise UserError("the prompt has many tokens")
        self.asked.append((text, history))
        return [ord(each) - ord("a") for pair in history for each in "".join(pair)] + [
            ord(each) - ord("a") for each in text
        ]


@dataclass
class Ear:
    """Hears how it goes."""

    runs: list[MeasuredRun] = field(default_factory=list)
    skips: list[tuple[Skipped, int]] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def ran(self, run: MeasuredRun) -> None:
        self.runs.append(run)

    def skipped(self, what: Skipped, runs: int) -> None:
        self.skips.append((what, runs))

    def differed(self, difference: Difference) -> None:
        self.differences.append(difference)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)


def plan(*rows: Conversation, repeat: int = 1, new_tokens: int = 6) -> Plan:
    return Plan(rows, POLICIES, new_tokens, repeat)


async def fake_answer(holder: Any, prompter: Any, policy: Any, wanted: Wanted) -> Answer:
    """What the true target writes, at once."""
    tokens = fakes.plain(wanted.tokens, loopback.limits(wanted.new_tokens))[0]
    figures = Figures(policy.name, len(wanted.tokens), len(tokens), first_token=0.1, decode=0.1)
    return Answer(figures, tokens, prompter.backend.decode(tokens), "length")


@dataclass
class FakeHolder:
    """Stands for a ring of two stages that answers at once."""

    trace: Trace = field(default_factory=Trace)
    prepared: list[list[list[int]]] = field(default_factory=list)
    cards: tuple[Any, ...] = (card(1, 2), card(2, 2))

    def prepare(
        self, prompts: list[list[int]], new_tokens: int, sampling: Sampling = GREEDY
    ) -> None:
        self.prepared.append(prompts)


def ring(place: Place = PLACE) -> MeasuredRing:
    prompter = cast(Prompter, FakePrompter())
    return MeasuredRing(place, cast(Any, FakeHolder()), prompter, lambda name: make(name, Bounds()))


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "answer", fake_answer)


def test_a_real_ring_under_every_policy() -> None:
    """Also the records that the split is made of come from a real holder."""

    async def scenario() -> None:
        async with loopback.ring(2) as made, loopback.holding(made) as holder:
            prompter = cast(Prompter, FakePrompter())
            one = MeasuredRing(PLACE, holder, prompter, lambda name: make(name, Bounds()))
            found, ear = Results({}, PLAN_OF_TWO), Ear()
            await measure(one, PLAN_OF_TWO, found, ear)
        assert not found.differences
        assert len(found.runs) == len(ear.runs) == PLAN_OF_TWO.runs
        assert all(
            run.breakdown is not None and len(run.breakdown.shares) == 3 for run in found.runs
        )
        assert all(run.figures.tokens == PLAN_OF_TWO.new_tokens for run in found.runs)
        assert all(run.figures.policy == run.policy for run in found.runs)
        written = found.written["a", 1, 1]
        assert list(written.tokens) == loopback.truth(24, [1, 2, 3, 1, 2])
        assert set(found.timelines["local 2"]) == set(POLICIES)
        assert all(timeline.segments for timeline in found.timelines["local 2"].values())

    loopback.run(scenario)


PLAN_OF_TWO = plan(
    Conversation("a", 1, ("bcdbc",)), Conversation("b", 1, ("cdc",)), repeat=2, new_tokens=24
)


def test_what_a_stage_cannot_compute_is_a_failure_and_the_rest_goes_on() -> None:
    async def scenario() -> None:
        async with loopback.ring(2) as made, loopback.holding(made) as holder:
            prompter = cast(Prompter, FakePrompter())
            one = MeasuredRing(PLACE, holder, prompter, lambda name: make(name, Bounds()))
            found, ear = Results({}, PLAN_OF_TWO), Ear()
            stage = made.seats[1].stage

            def fail_the_third_answer() -> None:
                if len(found.runs) == 2:
                    raise RuntimeError("out of memory")

            stage.trouble = fail_the_third_answer
            await measure(one, PLAN_OF_TWO, found, ear)
            assert holder.stands
        (failure,) = found.failures
        assert ear.failures == [failure]
        assert (failure.data, failure.policy, failure.repeat) == ("a", "gardener", 1)
        assert "RuntimeError: out of memory" in failure.why
        assert [run.error is None for run in found.runs].count(True) == PLAN_OF_TWO.runs - 1
        assert not found.differences
        assert found.timelines["local 2"].keys() == set(POLICIES)

    loopback.run(scenario)


def test_a_prompt_that_no_policy_can_answer_ends_its_conversation_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fails(holder: Any, prompter: Any, policy: Any, wanted: Wanted) -> Answer:
        got = await fake_answer(holder, prompter, policy, wanted)
        if wanted.tokens[0] == 1:
            got.error = "stage 1 could not compute segment 0"
        return got

    monkeypatch.setattr(runner, "answer", fails)
    found, ear = results(()), Ear()
    run_measure(
        ring(), plan(Conversation("a", 1, ("b", "c")), Conversation("a", 2, ("c",))), found, ear
    )
    assert [failure.line for failure in ear.failures] == [1] * 3
    assert [each.why for each, _ in ear.skips] == ["the turn before it was not answered"]
    assert [(run.line, run.error is None) for run in found.runs] == [(1, False)] * 3 + [
        (2, True)
    ] * 3
    assert list(found.written) == [("a", 2, 1)]


def run_measure(one: MeasuredRing, what: Plan, found: Results, ear: Ear) -> None:
    asyncio.run(measure(one, what, found, ear))


@pytest.mark.usefixtures("instant")
def test_the_order_moves_on_from_round_to_round() -> None:
    found, ear = results(()), Ear()
    run_measure(
        ring(),
        plan(Conversation("a", 1, ("b",)), Conversation("a", 2, ("c",)), repeat=2),
        found,
        ear,
    )
    rounds = [[r.policy for r in found.runs[at : at + 3]] for at in range(0, 12, 3)]
    assert rounds == [rotated(POLICIES, by) for by in range(4)]
    assert rounds == [
        ["plain", "serial", "gardener"],
        ["serial", "gardener", "plain"],
        ["gardener", "plain", "serial"],
        ["plain", "serial", "gardener"],
    ]
    assert [r.repeat for r in found.runs] == [1] * 3 + [2] * 3 + [1] * 3 + [2] * 3


def test_an_answer_that_repeats_itself_is_known_by_its_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def again(holder: Any, prompter: Any, policy: Any, wanted: Wanted) -> Answer:
        got = await fake_answer(holder, prompter, policy, wanted)
        got.tokens = [1, 2] * 6 if wanted.tokens[0] == 1 else list(range(10))
        return got

    monkeypatch.setattr(runner, "answer", again)
    found = results(())
    run_measure(
        ring(), plan(Conversation("a", 1, ("b",)), Conversation("a", 2, ("c",))), found, Ear()
    )
    assert [r.period for r in found.runs] == [2] * 3 + [None] * 3


@pytest.mark.usefixtures("instant")
def test_the_order_moves_on_from_prompt_to_prompt_and_from_turn_to_turn() -> None:
    found, ear = results(()), Ear()
    rows = (
        Conversation("a", 1, ("b", "c")),
        Conversation("a", 2, ("d",)),
        Conversation("b", 1, ("e",)),
    )
    run_measure(ring(), plan(*rows), found, ear)
    asked = [(r.data, r.line, r.turn, r.policy) for r in found.runs[::3]]
    assert asked == [  # who goes first
        ("a", 1, 1, "plain"),
        ("a", 2, 1, "serial"),
        ("b", 1, 1, "gardener"),
        ("a", 1, 2, "plain"),
    ]


@pytest.mark.usefixtures("instant")
def test_later_turns_go_on_from_what_was_written() -> None:
    found, ear, one = results(()), Ear(), ring()
    run_measure(
        one, plan(Conversation("a", 1, ("b", "c")), Conversation("a", 2, ("d",))), found, ear
    )
    text = found.written["a", 1, 1].text
    prompter = cast(FakePrompter, one.prompter)
    assert prompter.asked == [("b", []), ("d", []), ("c", [("b", text)])]
    holder = cast(FakeHolder, one.holder)
    assert [len(prompts) for prompts in holder.prepared] == [2, 1]
    assert [(r.line, r.turn) for r in found.runs[::3]] == [(1, 1), (2, 1), (1, 2)]


@pytest.mark.usefixtures("instant")
def test_a_second_ring_is_asked_the_same_and_held_to_the_first() -> None:
    found, ear = results(()), Ear()
    rows = plan(Conversation("a", 1, ("b", "c")))
    run_measure(ring(), rows, found, ear)
    first = dict(found.written)
    run_measure(ring(Place("local", 3)), rows, found, ear)
    assert found.written == first
    assert not ear.differences
    assert [r.place for r in found.runs] == ["local 2"] * 6 + ["local 3"] * 6


@pytest.mark.usefixtures("instant")
def test_what_does_not_fit_is_skipped_with_all_that_follows_it() -> None:
    found, ear = results(()), Ear()
    run_measure(
        ring(),
        plan(Conversation("a", 1, ("too long", "b")), Conversation("a", 2, ("c",))),
        found,
        ear,
    )
    skips = [(each.line, each.turn, each.why, runs) for each, runs in ear.skips]
    assert skips == [
        (1, 1, "the prompt has many tokens", 3),
        (1, 2, "the turn before it was not answered", 3),
    ]
    assert [r.line for r in found.runs] == [2] * 3


@pytest.mark.usefixtures("instant")
def test_nothing_that_fits_is_an_error() -> None:
    with pytest.raises(UserError, match="no prompt can be asked; skipped a, line 1, turn 1: the p"):
        run_measure(ring(), plan(Conversation("a", 1, ("too long",))), results(()), Ear())


def test_another_text_is_reported_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wrong(holder: Any, prompter: Any, policy: Any, wanted: Wanted) -> Answer:
        got = await fake_answer(holder, prompter, policy, wanted)
        if policy.name == "serial" and wanted.tokens[0] == 1:
            got.tokens[4] = 9 - got.tokens[4]
        return got

    monkeypatch.setattr(runner, "answer", wrong)
    found, ear = results(()), Ear()
    run_measure(
        ring(), plan(Conversation("a", 1, ("b",)), Conversation("a", 2, ("c",))), found, ear
    )
    (difference,) = found.differences
    assert ear.differences == [difference]
    assert (difference.line, difference.token) == (1, 4)
    assert difference.policies == ("plain", "serial")
    assert difference.around[0] == found.written["a", 1, 1].text
    assert difference.around[0][:4] == difference.around[1][:4]
    assert difference.around[0][4] != difference.around[1][4]
    assert len(found.runs) == 6


@pytest.mark.parametrize(
    ("near", "apart", "tied"),
    [(0.0, 0.01, False), (0.5, 0.01, True), (0.5, 0.6, False), (0.5, None, False)],
)
def test_a_difference_at_a_near_tie_is_told_from_a_wrong_text(
    near: float, apart: float | None, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def parts(holder: Any, prompter: Any, policy: Any, wanted: Wanted) -> Answer:
        got = await fake_answer(holder, prompter, policy, wanted)
        if policy.name == "serial":
            got.tokens[4] = 9 - got.tokens[4]
        return got

    looked: list[Any] = []

    async def gap(holder: Any, prompter: Any, *what: Any) -> float | None:
        looked.append(what)
        return apart

    monkeypatch.setattr(runner, "answer", parts)
    monkeypatch.setattr(runner, "gap", gap)
    found, ear = results(()), Ear()
    found.add_ring(PLACE, [{}], "none", near_tie=near)
    run_measure(ring(), plan(Conversation("a", 1, ("b",))), found, ear)
    (difference,) = found.differences
    right = found.written["a", 1, 1].tokens
    assert ear.differences == [difference]
    assert difference.tokens == (right[4], 9 - right[4])
    assert (difference.near_tie, bool(found.wrong)) == (tied, not tied)
    assert str(difference).startswith("a near tie: " if tied else "THE TEXTS DIFFER: ")
    assert found.brief()["near_ties"] == tied
    if near:
        ((_, agreed, tokens, _),) = looked
        assert (agreed, tokens) == (right[:4], difference.tokens)
        assert difference.gap == apart
    else:
        assert (looked, difference.gap) == ([], None)


def test_an_answer_cut_short_ends_it_and_what_was_there_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def breaks(holder: Any, prompter: Any, policy: Any, wanted: Wanted) -> Answer:
        got = await fake_answer(holder, prompter, policy, wanted)
        if policy.name == "gardener" and wanted.new_tokens == 64:
            got.error, got.stands = "stage 2 was lost", False
        return got

    monkeypatch.setattr(runner, "answer", breaks)
    found, ear = results(()), Ear()
    with pytest.raises(GardenerError, match="stage 2 was lost"):
        run_measure(ring(), plan(Conversation("a", 1, ("b",)), new_tokens=64), found, ear)
    assert [r.error for r in found.runs] == [None, None, "stage 2 was lost"]
    assert ("a", 1, 1) in found.written


def test_where_texts_part() -> None:
    assert differs([1, 2], [1, 2]) is None
    assert differs([1, 2], [1, 3]) == 1
    assert differs([1, 2], [1]) == differs([1], [1, 2]) == 1


def test_links_weigh_what_was_measured() -> None:
    assert link_weights([card(1, 2), card(2, 2)]) == [1.0, 1.0, 1.0]
    delays = [SimpleNamespace(delay=delay) for delay in (100, 0, 500)]
    assert link_weights(cast(Any, delays)) == [200.0, 100.0, 200.0, 500.0]
