"""Figures from runs made by hand."""

from typing import Any

import pytest

from gardener.evaluation.passes import Shares, Split
from gardener.evaluation.tally import Run, summary


def run(**changes: Any) -> Run:
    """11 tokens, one of them in the first second, ten in the ten seconds after it."""
    usual: dict[str, Any] = {
        "place": "local 2",
        "data": "a",
        "line": 1,
        "turn": 1,
        "policy": "plain",
        "repeat": 1,
        "prompt_tokens": 5,
        "tokens": 11,
        "at_once": 1,
        "first_token": 1.0,
        "decode": 10.0,
        "segments": 11,
        "judged": 10,
        "rows": 20,
        "wasted": 10,
        "accepted": 0,
        "reason": "length",
    }
    return Run(**(usual | changes))


def test_figures_of_one_run() -> None:
    one = run()
    assert (one.rate, one.whole_rate, one.per_tick, one.tick) == (1.0, 1.0, 1.0, 1.0)
    assert run(tokens=3, at_once=3).rate is None
    assert run(decode=0.0).rate is None
    assert run(tokens=0, at_once=0, first_token=0.0, decode=0.0).whole_rate == 0.0
    assert one.as_dict()["tokens_per_second"] == 1.0


def test_medians_over_repetitions_and_means_over_prompts() -> None:
    runs = [run(repeat=k, decode=decode) for k, decode in enumerate((10.0, 5.0, 100.0))]
    runs += [run(line=2, decode=20.0), run(line=2, policy="serial", decode=10.0)]
    runs += [run(policy="serial", decode=2.5, segments=5, accepted=6, wasted=2)]
    found = summary(runs, ("plain", "serial"))
    assert list(found) == ["a"]
    assert (found["a"]["prompts"], found["a"]["rated"]) == (2, 2)
    plain, serial = (found["a"]["policies"][name] for name in ("plain", "serial"))
    assert plain["tokens_per_second"] == pytest.approx((1.0 + 0.5) / 2)
    assert serial["tokens_per_second"] == pytest.approx((4.0 + 1.0) / 2)
    assert serial["speedup"]["plain"] == pytest.approx({"mean": 3.0, "worst": 2.0})
    assert serial["speedup"]["serial"] == {"mean": 1.0, "worst": 1.0}
    assert set(serial["speedup"]) == {"plain", "serial"}
    whole = (11 / 3.5 / 1.0 + 11 / 11.0 / (11 / 21.0)) / 2
    assert serial["end_to_end_speedup"]["plain"]["mean"] == pytest.approx(whole)
    assert serial["tokens_per_tick"] == pytest.approx((11 / 5 + 1.0) / 2)
    assert serial["accepted_per_segment"] == pytest.approx(6 / 5 / 2)
    assert serial["wasted"] == pytest.approx(12 / 40)
    assert serial["first_token"] == 1.0


def test_only_what_all_have_answered_is_compared() -> None:
    runs = [run(), run(policy="serial"), run(line=2), run(line=3, policy="serial", error="lost")]
    found = summary(runs, ("plain", "serial"))["a"]
    assert found["prompts"] == 1
    assert summary([run()], ("plain", "serial")) == {}


def test_an_answer_in_one_piece_has_no_speed_but_the_rest() -> None:
    runs = [run(), run(policy="serial", at_once=11)]
    found = summary(runs, ("plain", "serial"))["a"]
    assert (found["prompts"], found["rated"]) == (1, 0)
    assert found["policies"]["plain"]["tokens_per_second"] is None
    assert found["policies"]["serial"]["speedup"]["plain"] == {"mean": None, "worst": None}
    assert found["policies"]["plain"]["end_to_end"] == 1.0


def test_overall_takes_every_prompt_alike() -> None:
    runs = [run(), run(line=2), run(data="b", decode=2.5)]
    found = summary(runs, ("plain",))
    assert list(found) == ["a", "b", "overall"]
    assert found["overall"]["policies"]["plain"]["tokens_per_second"] == pytest.approx(2.0)


def test_a_tick_is_split_by_time() -> None:
    one = Split(1.0, (Shares(0, 0, 0, 1.0), Shares(1.0, 0, 0, 0)))
    three = Split(3.0, (Shares(0, 0, 3.0, 0), Shares(0, 3.0, 0, 0)), missed=1.0)
    runs = [run(split=one), run(line=2, split=three, decode=30.0), run(line=3)]
    tick = summary(runs, ("plain",))["a"]["policies"]["plain"]["tick"]
    assert tick["seconds"] == pytest.approx((1.0 + 3.0 + 1.0) / 3)
    assert tick["machines"] == [
        {"compute": 0.0, "link": 0.0, "drafting": 0.75, "waiting": 0.25},
        {"compute": 0.25, "link": 0.75, "drafting": 0.0, "waiting": 0.0},
    ]
    assert tick["missed"] == 0.25
    none = summary([run()], ("plain",))["a"]["policies"]["plain"]["tick"]
    assert none == {"seconds": 1.0, "machines": [], "missed": None}
