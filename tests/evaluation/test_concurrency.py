"""Figures of several requests at once, from answers made by hand."""

import io
from typing import Any

import pytest
from rich.console import Console
from test_tally import run

from gardener.evaluation.concurrency import Load, LoadAnswer, alone, fairness, summary
from gardener.evaluation.concurrency_tables import concurrency_tables


def answered(line: int = 1, **changes: Any) -> LoadAnswer:
    """10 tokens in 10 seconds."""
    usual: dict[str, Any] = {
        "data": "a",
        "line": line,
        "turn": 1,
        "asked": 0.0,
        "tokens": 10,
        "first_token": 1.0,
        "seconds": 10.0,
        "reason": "length",
    }
    return LoadAnswer(**usual | changes)


def load(*answers: LoadAnswer, **changes: Any) -> Load:
    usual: dict[str, Any] = {"place": "local 2", "policy": "plain", "requests": 2, "repeat": 1}
    return Load(**{"seconds": 10.0, **usual, **changes}, answers=answers)


def test_the_index_of_jain() -> None:
    """(1 + 1 + 1/2)² / (3 · (1 + 1 + 1/4)): the third is slowed down twice as much as others."""
    base = {("a", 1, 1): 2.0, ("a", 2, 1): 8.0, ("a", 3, 1): 4.0}
    equal = [answered(1, tokens=10), answered(2, tokens=40)]
    assert fairness(equal, base) == pytest.approx(1.0)
    assert fairness([*equal, answered(3, tokens=10)], base) == pytest.approx(6.25 / 6.75)
    assert fairness([answered(1), answered(2, tokens=0)], base) == pytest.approx(0.5)
    assert fairness([answered(9)], base) is None


def test_all_requests_together_and_each_of_them() -> None:
    slow = answered(2, tokens=5, first_token=4.0)
    found = summary([load(answered(), slow, seconds=12.0)], [], ("plain",), (2,))["plain"]["2"]
    assert (found["answers"], found["tokens"], found["seconds"]) == (2, 15, 12.0)
    assert found["tokens_per_second"] == pytest.approx(1.25)
    assert found["per_request"] == {"mean": 0.75, "worst": 0.5}
    assert found["first_token"] == {"mean": 2.5, "p95": 4.0, "worst": 4.0}
    assert found["fairness"] is None  # nobody knows how fast they are alone


def test_of_twenty_first_tokens_one_is_later_than_p95() -> None:
    answers = [answered(line, first_token=float(line)) for line in range(1, 21)]
    found = summary([load(*answers)], [], ("plain",), (2,))["plain"]["2"]
    assert (found["first_token"]["p95"], found["first_token"]["worst"]) == (19.0, 20.0)


def test_repetitions_count_with_their_median_and_failures_not_at_all() -> None:
    broken = answered(2, tokens=3, error="stage 1 could not compute it")
    loads = [
        load(answered(), broken, repeat=repeat, seconds=seconds)
        for repeat, seconds in ((1, 10.0), (2, 5.0), (3, 100.0))
    ]
    found = summary(loads, [], ("plain",), (2,))["plain"]["2"]
    assert found["tokens_per_second"] == pytest.approx(1.0)
    assert found["answers"] == 3
    assert summary([load(broken)], [], ("plain",), (2,)) == {}


def test_one_request_at_a_time_is_what_was_measured_alone() -> None:
    runs = [run(), run(line=2, decode=4.0), run(repeat=2), run(line=2, repeat=2)]
    runs += [run(policy="serial", decode=0.0)]
    first, second = alone(runs, "plain")
    assert (first.seconds, first.requests, first.repeat) == (16.0, 1, 1)
    assert [each.asked for each in first.answers] == [0.0, 11.0]
    assert first.rate == pytest.approx(22 / 16)
    assert second.rate == pytest.approx(1.0)
    found = summary([], runs, ("plain", "serial"), (1,))
    assert found["plain"]["1"]["tokens_per_second"] == pytest.approx((22 / 16 + 1) / 2)
    assert found["serial"]["1"]["of_plain"] == pytest.approx(11 / ((22 / 16 + 1) / 2))


def test_a_request_is_held_to_its_own_speed_alone() -> None:
    """The second prompt is twice as fast as the first, alone and with others: that is fair."""
    runs = [run(), run(line=2, first_token=0.5, decode=5.0)]
    both = load(answered(tokens=11, seconds=22.0), answered(2, tokens=11, seconds=11.0))
    found = summary([both], runs, ("plain",), (1, 2))
    assert found["plain"]["2"]["fairness"] == pytest.approx(1.0)
    assert found["plain"]["1"]["fairness"] == pytest.approx(1.0)


def test_the_table_says_it_all() -> None:
    loads = [load(answered(), answered(2)), load(answered(tokens=30), policy="gardener")]
    found = summary(loads, [run(), run(line=2)], ("plain", "gardener"), (1, 2))
    stream = io.StringIO()
    Console(file=stream, width=130).print(concurrency_tables({"local 2": found, "local 3": {}}))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert [
        "2",
        "2.0",
        "1.00",
        "1.0",
        "1.0",
        "1.00",
        "s",
        "1.00",
        "s",
        "1.00",
        "s",
        "1.00",
    ] in lines
    assert ["2", "3.0", "1.50", "3.0", "3.0", "1.00", "s", "1.00", "s", "1.00", "s", "-"] in lines
    assert ["gardener"] in lines
    assert "local 3" not in stream.getvalue()
