"""Several requests at once through one ring, on a clock of its own and without any arithmetic."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import fakes
import loopback
import pytest
import simulated
from test_runner import Ear, FakeHolder, FakePrompter, plan

from gardener.decoding.policy import Bounds, make
from gardener.errors import GardenerError
from gardener.evaluation import askers, runner
from gardener.evaluation.askers import measure_loads
from gardener.evaluation.datasets import Conversation
from gardener.evaluation.plan import Place, Plan
from gardener.evaluation.results import Results
from gardener.evaluation.runner import MeasuredRing, measure
from gardener.holder.answer import Answer, Wanted
from gardener.holder.figures import Figures
from gardener.holder.prompter import Prompter
from gardener.protocol.sampling import Sampling
from gardener.runtime import clock

PLACE = Place("simulate", 2, profile="gpu")
ROWS = tuple(Conversation("a", line, (text,)) for line, text in enumerate("bcdef", 1))


@dataclass
class LoadEar(Ear):
    """Hears how it goes with several requests at once, too."""

    said: list[str] = field(default_factory=list)
    expected: int = 0
    answers: list[tuple[str, int]] = field(default_factory=list)
    pauses: int = 0

    def say(self, line: str) -> None:
        self.said.append(line)

    def expects(self, answers: int) -> None:
        self.expected += answers

    def answered(self, place: str, policy: str, requests: int) -> None:
        self.answers.append((policy, requests))

    def loaded(self) -> None:
        self.pauses += 1


Spoil: TypeAlias = Callable[[Answer, Wanted, int], None]
"""Meddles with an answer; is told how many requests ran when this one began."""


def harmless(got: Answer, wanted: Wanted, running: int) -> None:
    """Leaves it as it is."""


@dataclass
class Shared:
    """A ring that computes one token in a second for each request that runs: `most` is how many
    did at a time."""

    running: int = 0
    most: int = 0
    wanted: list[Wanted] = field(default_factory=list)
    spoil: Spoil = harmless

    async def answer(self, holder: Any, prompter: Any, policy: Any, wanted: Wanted) -> Answer:
        self.wanted.append(wanted)
        self.running += 1
        self.most = max(self.most, self.running)
        began, running = clock.now(), self.running
        tokens = fakes.plain(wanted.tokens, loopback.limits(wanted.new_tokens))[0]
        figures = Figures(policy.name, len(wanted.tokens))
        for _ in tokens:
            await asyncio.sleep(1.0)
            figures.emitted(1, clock.now() - began)
        got = Answer(figures, tokens, prompter.backend.decode(tokens), "length")
        self.spoil(got, wanted, running)
        self.running -= 1
        return got


def measured(
    shared: Shared, what: Plan, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[Results, LoadEar]:
    """All of the plan in one ring with these settings. What broke the ring is `results.ended`."""
    monkeypatch.setattr(runner, "answer", shared.answer)
    monkeypatch.setattr(askers, "answer", shared.answer)
    prompter, holder = cast(Prompter, FakePrompter()), cast(Any, FakeHolder())
    ring = MeasuredRing(PLACE, holder, prompter, lambda name: make(name, Bounds()), **settings)
    found, ear = Results({}, what), LoadEar()
    found.add_ring(PLACE, [{}] * 2, "none")

    async def scenario() -> None:
        asked = await measure(ring, what, found, ear)
        await measure_loads(ring, what, asked, found, ear)

    try:
        simulated.run(scenario)
    except GardenerError as error:
        found.ended = str(error)
    return found, ear


def levels(*numbers: int, repeat: int = 1, rows: tuple[Conversation, ...] = ROWS) -> Plan:
    return replace(plan(*rows, repeat=repeat), levels=numbers)


def test_so_many_ask_at_once_and_each_goes_on_when_its_answer_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = Shared()
    found, ear = measured(shared, levels(1, 2), monkeypatch)
    assert shared.most == 2
    assert [(load.policy, load.requests) for load in found.loads] == [
        ("plain", 2),
        ("serial", 2),
        ("gardener", 2),
    ]
    for load in found.loads:
        assert [each.line for each in load.answers] == [1, 2, 3, 4, 5]
        assert [each.asked for each in load.answers] == [0.0, 0.0, 6.0, 6.0, 12.0]
        assert load.seconds == pytest.approx(18.0)
        assert load.rate == pytest.approx(30 / 18)
    assert not found.differences
    assert len(ear.answers) == ear.expected == 15
    assert ear.pauses == 3
    figures = found.concurrency()[str(PLACE)]["plain"]
    assert figures["1"]["tokens_per_second"] == pytest.approx(1.0)
    assert figures["2"]["tokens_per_second"] == pytest.approx(30 / 18)
    assert figures["2"]["first_token"]["worst"] == pytest.approx(1.0)
    assert figures["2"]["fairness"] == pytest.approx(1.0)


def test_alone_nothing_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found, ear = measured(Shared(), levels(1), monkeypatch)
    assert (found.loads, ear.answers, found.concurrency()) == ([], [], {})


def test_prompts_are_asked_again_where_there_are_fewer_than_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = Shared()
    found, ear = measured(shared, levels(8), monkeypatch)
    assert ear.said == [f"{PLACE}: 5 prompts for 8 requests at once: each of them is asked 2 times"]
    assert shared.most == 8
    assert [len(load.answers) for load in found.loads] == [10] * 3
    assert sorted(each.line for each in found.loads[0].answers) == sorted([1, 2, 3, 4, 5] * 2)


def test_who_goes_first_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = measured(Shared(), levels(2, 4, repeat=2), monkeypatch)
    order = [(load.repeat, load.requests, load.policy) for load in found.loads[::3]]
    assert order == [(1, 2, "plain"), (1, 4, "serial"), (2, 2, "gardener"), (2, 4, "plain")]


def test_later_turns_are_asked_among_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (Conversation("a", 1, ("b", "c")), Conversation("a", 2, ("d",)))
    found, _ = measured(Shared(), levels(2, rows=rows), monkeypatch)
    assert [each.prompt for each in found.loads[0].answers] == [
        ("a", 1, 1),
        ("a", 2, 1),
        ("a", 1, 2),
    ]


def test_every_request_has_the_settings_and_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, sampling = Shared(), Sampling(0.7, seed=5)
    measured(shared, levels(1, 2), monkeypatch, sampling=sampling, ignore_eos=True)
    assert {(each.sampling, each.ignore_eos) for each in shared.wanted} == {(sampling, True)}


def test_a_text_that_is_another_among_others_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(got: Answer, wanted: Wanted, running: int) -> None:
        if running == 2 and wanted.tokens == [3] and got.figures.policy == "serial":
            got.tokens[4] = 9 - got.tokens[4]

    found, ear = measured(Shared(spoil=spoil), levels(2), monkeypatch)
    (difference,) = ear.differences
    assert found.differences == [difference]
    assert (difference.line, difference.token, difference.requests) == (3, 4, 2)
    assert difference.policies == ("plain", "serial")
    assert f"serial ({PLACE}) with 2 requests at once left plain ({PLACE})" in str(difference)


def test_an_answer_cut_short_is_a_failure_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoil(got: Answer, wanted: Wanted, running: int) -> None:
        if running == 2 and wanted.tokens == [2]:
            got.error = "stage 1 could not compute segment 0"

    found, ear = measured(Shared(spoil=spoil), levels(2), monkeypatch)
    assert [(each.line, each.policy, each.requests) for each in found.failures] == [
        (2, name, 2) for name in ("plain", "serial", "gardener")
    ]
    assert ear.failures == found.failures
    assert "run 1 with 2 requests at once: stage 1 could not" in str(found.failures[0])
    assert all(len(load.answers) == 5 for load in found.loads)


def test_a_ring_that_breaks_ends_it_with_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(got: Answer, wanted: Wanted, running: int) -> None:
        if running == 2 and wanted.tokens == [2]:
            got.error, got.stands = "stage 2 was lost", False

    found, ear = measured(Shared(spoil=spoil), levels(2), monkeypatch)
    assert found.ended == "stage 2 was lost"
    (load,) = found.loads
    assert [(each.line, each.error) for each in load.answers] == [
        (1, None),
        (2, "stage 2 was lost"),
        (3, None),  # it was asked when the first one was there
    ]
    assert ear.failures == found.failures
