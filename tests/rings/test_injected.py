"""Rings in which things go wrong as a seed says: texts right or an honest error, nothing left.

The many runs are `python -m benchmarks.injected`; here are a few of them.
"""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from gardener.holder.holder import Holder
from gardener.rings.simulate.injected.boundaries import at_each_boundary, undisturbed
from gardener.rings.simulate.injected.case import draw
from gardener.rings.simulate.injected.faults import KINDS, Fault, When
from gardener.rings.simulate.injected.run import play

RUNS = 100


@pytest.mark.parametrize("first", range(0, RUNS, 20))
def test_texts_are_right_or_end_with_an_honest_error_and_nothing_is_left(first: int) -> None:
    for seed in range(first, first + 20):
        outcome = play(draw(seed))
        assert outcome.wrong == [], f"{outcome.case}\npython -m benchmarks.injected --one {seed}"


@pytest.mark.parametrize("part", range(4))
def test_a_machine_may_die_at_each_message_boundary(part: int) -> None:
    for number, case in enumerate(at_each_boundary()):
        if number % 4 == part:
            outcome = play(case)
            assert outcome.wrong == [], str(case)
            assert outcome.struck
            if outcome.struck == ["crash"]:
                assert (outcome.right, outcome.lost) == (2, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_goes_wrong_takes_place(kind: str) -> None:
    fault = Fault(kind, int(not kind.startswith("holder")), 0.4, When("at", 0.09))
    outcome = play(undisturbed(faults=[fault]))
    assert outcome.wrong == []
    assert outcome.struck == [kind]


def test_a_seed_reproduces_its_run_in_any_process() -> None:
    code = (
        "from gardener.rings.simulate.injected.case import draw\n"
        "from gardener.rings.simulate.injected.run import play\n"
        "print(*(play(draw(seed)).digest for seed in (3, 27)))"
    )
    seeds = {"PYTHONHASHSEED": "7"}
    told = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **seeds}, capture_output=True, check=True
    ).stdout
    assert told.split() == [play(draw(seed)).digest.encode() for seed in (3, 27)]


def test_the_oracle_sees_a_wrong_text_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    case = undisturbed(faults=[Fault("crash", 1, 0.4, When("at", 0.09))])
    (ask,) = case.asks
    text = (*ask.text[:3], 0, *ask.text[4:])
    played = play(case)
    assert played.wrong == []
    other = play(replace(case, asks=(replace(ask, text=text),)))
    assert other.digest != played.digest

    def forgets(self: Holder) -> None:
        self.lost, self._broke, self._refusal = frozenset(), "", None
        self._patience.end()

    monkeypatch.setattr(Holder, "mended", forgets)
    assert any("nothing happens" in each for each in play(case).wrong)
