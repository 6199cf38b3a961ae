"""Figures from runs made by hand."""

from typing import Any

import pytest

from benchmarks.simulated import by_data
from gardener.decoding.limits import Counts
from gardener.decoding.stage_times import StageTimes
from gardener.evaluation.tally import MeasuredRun, prefills, summary
from gardener.evaluation.timeline import Breakdown, Shares
from gardener.holder.figures import Figures
from gardener.holder.rates import Prefill


def run(**changes: Any) -> MeasuredRun:
    """11 tokens, one of them in the first second, ten in the ten seconds after it."""
    usual: dict[str, Any] = {
        "place": "local 2",
        "data": "a",
        "line": 1,
        "turn": 1,
        "policy": "plain",
        "repeat": 1,
        "reason": "length",
    }
    figures: dict[str, Any] = {"tokens": 11, "first_token": 1.0, "decode": 10.0}
    counts: dict[str, Any] = {"segments": 11, "rows": 20, "wasted": 10, "accepted": 0}
    judged = changes.pop("judged", 10)
    for part in (figures, counts):
        part.update({name: changes.pop(name) for name in part.keys() & changes.keys()})
    made = usual | changes
    figures |= {"counts": Counts(**counts), "stage_times": StageTimes(segments=judged)}
    return MeasuredRun(**made, figures=Figures(made["policy"], 5, **figures))


def test_figures_of_one_run() -> None:
    one = run().figures
    assert (one.rate(1.0), one.end_to_end, one.tokens_per_segment, one.tick) == (1.0, 1.0, 1.0, 1.0)
    assert one.rows_per_segment == pytest.approx(20 / 11)
    assert one.rate(6.0) == 2.0
    assert run(tokens=1).figures.rate(1.0) is None
    assert run(decode=0.0).figures.rate(1.0) is None
    assert run(tokens=0, first_token=0.0, decode=0.0).figures.end_to_end == 0.0


def test_a_line_of_the_results() -> None:
    one = run()
    made = one.as_dict(Prefill("plain", 6.0))
    assert (made["tokens_per_second"], made["prefill"], made["prefill_of"]) == (2.0, 6.0, "plain")
    unknown = one.as_dict(None)
    assert (unknown["tokens_per_second"], unknown["prefill"], unknown["end_to_end"]) == (
        None,
        None,
        1.0,
    )


def test_medians_over_repetitions_and_means_over_prompts() -> None:
    runs = [run(repeat=k, decode=decode) for k, decode in enumerate((10.0, 5.0, 100.0))]
    runs += [run(line=2, decode=20.0), run(line=2, policy="serial", decode=10.0)]
    runs += [run(policy="serial", decode=2.5, segments=5, accepted=6, wasted=2)]
    found = summary(runs, ("plain", "serial"))
    assert list(found) == ["a"]
    assert (found["a"]["prompts"], found["a"]["rated"]) == (2, 2)
    plain, serial = (found["a"]["policies"][name] for name in ("plain", "serial"))
    assert plain["tokens_per_second"]["mean"] == pytest.approx((1.0 + 0.5) / 2)
    assert serial["tokens_per_second"]["mean"] == pytest.approx((4.0 + 1.0) / 2)
    assert serial["speedup"]["plain"] == pytest.approx({"mean": 3.0, "median": 3.0, "worst": 2.0})
    assert serial["speedup"]["serial"] == {"mean": 1.0, "median": 1.0, "worst": 1.0}
    assert set(serial["speedup"]) == {"plain", "serial"}
    whole = (11 / 3.5 / 1.0 + 11 / 11.0 / (11 / 21.0)) / 2
    assert serial["end_to_end_speedup"]["plain"]["mean"] == pytest.approx(whole)
    assert serial["rows_per_segment"] == pytest.approx((20 / 5 + 20 / 11) / 2)
    assert serial["tokens_per_tick"] == pytest.approx((11 / 5 + 1.0) / 2)
    assert serial["accepted_per_segment"] == pytest.approx(6 / 5 / 2)
    assert serial["wasted"] == pytest.approx(12 / 40)
    assert serial["first_token"] == 1.0


def test_only_what_all_have_answered_is_compared() -> None:
    runs = [run(), run(policy="serial"), run(line=2), run(line=3, policy="serial", error="lost")]
    found = summary(runs, ("plain", "serial"))["a"]
    assert found["prompts"] == 1
    assert summary([run()], ("plain", "serial")) == {}


def test_an_answer_of_one_token_has_no_speed_but_the_rest() -> None:
    runs = [run(), run(policy="serial", tokens=1)]
    found = summary(runs, ("plain", "serial"))["a"]
    assert (found["prompts"], found["rated"]) == (1, 0)
    nothing: dict[str, Any] = {"mean": None, "median": None}
    assert found["policies"]["plain"]["tokens_per_second"] == nothing
    assert found["policies"]["serial"]["speedup"]["plain"] == {**nothing, "worst": None}
    assert found["policies"]["plain"]["end_to_end"] == {"mean": 1.0, "median": 1.0}


def test_an_answer_in_one_piece_has_a_speed_and_no_tick() -> None:
    """All of it came with the first token, long after that of plain."""
    runs = [run(), run(policy="serial", first_token=6.0, decode=0.0, judged=0)]
    found = summary(runs, ("plain", "serial"))["a"]
    serial = found["policies"]["serial"]
    assert (found["rated"], serial["tokens_per_second"]["mean"]) == (1, 10 / 5.0)
    assert serial["tick"]["seconds"] is None


def test_medians_stand_beside_means() -> None:
    """Three prompts that serial answers at 1, 2 and 9 times the speed of plain."""
    runs = [run(line=line) for line in (1, 2, 3)]
    runs += [
        run(line=line, policy="serial", decode=10.0 / factor)
        for line, factor in ((1, 1.0), (2, 2.0), (3, 9.0))
    ]
    serial = summary(runs, ("plain", "serial"))["a"]["policies"]["serial"]
    middle = {"mean": 4.0, "median": 2.0}
    assert serial["tokens_per_second"] == pytest.approx(middle)
    assert serial["speedup"]["plain"] == pytest.approx({**middle, "worst": 1.0})
    whole = [11 / 11.0, 11 / 6.0, 11 / (1 + 10 / 9)]
    assert serial["end_to_end"] == pytest.approx({"mean": sum(whole) / 3, "median": whole[1]})
    assert serial["end_to_end_speedup"]["plain"] == pytest.approx(
        {"mean": sum(whole) / 3, "median": whole[1], "worst": 1.0}
    )
    plain = summary(runs, ("plain", "serial"))["a"]["policies"]["plain"]
    assert plain["speedup"]["serial"]["median"] == pytest.approx(0.5)


def test_what_is_under_way_at_the_first_token_is_not_free() -> None:
    """Both end after 11 s. Who had the first token late is not faster for it."""
    runs = [run(), run(policy="gardener", first_token=9.0, decode=2.0)]
    found = summary(runs, ("plain", "gardener"))["a"]
    ours = found["policies"]["gardener"]
    assert ours["tokens_per_second"]["mean"] == pytest.approx(1.0)
    assert ours["speedup"]["plain"]["mean"] == pytest.approx(1.0)
    assert found["prefill"] == {"of": {"plain": 1}, "seconds": {"mean": 1.0, "median": 1.0}}


def test_without_plain_the_quickest_first_token_ends_the_prefill() -> None:
    """By the medians over repetitions: serial has 3, 1 and 2 s, pipedec 4, 1.5 and 1.5."""
    times = {"serial": (3.0, 1.0, 2.0), "pipedec": (4.0, 1.5, 1.5)}
    runs = [
        run(policy=name, repeat=at, first_token=first, decode=11.5 - first)
        for name, each in times.items()
        for at, first in enumerate(each, 1)
    ]
    runs += [run(line=2, policy=name, first_token=2.0) for name in times]
    found = summary(runs, ("serial", "pipedec"))["a"]
    assert prefills(runs)["local 2", "a", 1, 1] == ("pipedec", 1.5)
    assert found["prefill"]["of"] == {"serial": 1, "pipedec": 1}
    assert found["prefill"]["seconds"]["mean"] == pytest.approx(1.75)
    for name in times:
        assert found["policies"][name]["tokens_per_second"]["mean"] == pytest.approx(1.0)


def test_answers_cut_short_end_no_prefill() -> None:
    runs = [run(first_token=0.1, error="lost"), run(policy="serial", first_token=2.0)]
    assert prefills(runs)["local 2", "a", 1, 1] == ("serial", 2.0)


def test_what_repeats_itself_is_reported_apart() -> None:
    runs = [run(line=line, period=3 if line == 2 else None) for line in (1, 2, 3)]
    runs += [
        run(line=line, policy="serial", decode=10.0 / (12 if line == 2 else line))
        for line in (1, 2, 3)
    ]
    found = summary(runs, ("plain", "serial"))["a"]
    parts = [found, found["repeating"], found["not_repeating"]]
    assert [part["prompts"] for part in parts] == [3, 1, 2]
    speeds = [part["policies"]["serial"]["speedup"]["plain"]["mean"] for part in parts]
    assert speeds == pytest.approx([(1 + 12 + 3) / 3, 12.0, 2.0])


def test_variants_of_a_benchmark_have_one_prefill() -> None:
    runs = [run(policy="whole", first_token=6.0, decode=5.0), run(policy="part")]
    assert by_data(runs) == {"a": {"whole": {"a 1 1": 1.0}, "part": {"a 1 1": 1.0}}}


def test_overall_takes_every_prompt_alike() -> None:
    runs = [run(), run(line=2), run(data="b", decode=2.5)]
    found = summary(runs, ("plain",))
    assert list(found) == ["a", "b", "overall"]
    assert found["overall"]["policies"]["plain"]["tokens_per_second"]["mean"] == pytest.approx(2.0)


def test_a_tick_is_split_by_time() -> None:
    one = Breakdown(1.0, (Shares(0, 0, 0, 1.0), Shares(1.0, 0, 0, 0)))
    three = Breakdown(3.0, (Shares(0, 0, 3.0, 0), Shares(0, 3.0, 0, 0)), missed=1.0)
    runs = [run(breakdown=one), run(line=2, breakdown=three, decode=30.0), run(line=3)]
    tick = summary(runs, ("plain",))["a"]["policies"]["plain"]["tick"]
    assert tick["seconds"] == pytest.approx((1.0 + 3.0 + 1.0) / 3)
    assert tick["machines"] == [
        {"compute": 0.0, "link": 0.0, "drafting": 0.75, "waiting": 0.25},
        {"compute": 0.25, "link": 0.75, "drafting": 0.0, "waiting": 0.0},
    ]
    assert tick["missed"] == 0.25
    none = summary([run()], ("plain",))["a"]["policies"]["plain"]["tick"]
    assert none == {"seconds": 1.0, "machines": [], "missed": None}
