"""Tokens per second, of one answer and of several."""

import pytest

from gardener.cli.answered import Answered, as_object, summary
from gardener.holder.answer import Answer
from gardener.holder.figures import Figures
from gardener.holder.rates import Prefill, decoding_rate, prefill


def test_the_prefill_is_that_of_plain_or_the_shortest() -> None:
    times = {"gardener": [1.0, 9.0, 2.0], "plain": [4.0, 3.0, 20.0], "serial": [5.0]}
    assert prefill(times) == Prefill("plain", 4.0)
    del times["plain"]
    assert prefill(times) == Prefill("gardener", 2.0)


def test_all_tokens_but_the_first_count_from_there_on() -> None:
    assert decoding_rate(11, 6.0, 1.0) == 2.0
    assert decoding_rate(1, 6.0, 1.0) is None
    assert decoding_rate(11, 1.0, 1.0) is None


def answer(policy: str, first_token: float, total: float, tokens: int = 11) -> Answer:
    figures = Figures(policy, 5, tokens, first_token=first_token, decode=total - first_token)
    return Answer(figures, list(range(tokens)))


def test_an_answer_alone_has_both_rates() -> None:
    one = answer("gardener", 1.0, 6.0).figures
    assert (one.own_rate, one.end_to_end) == (2.0, 11 / 6)
    short, empty = answer("plain", 1.0, 1.0, 1).figures, answer("plain", 0.0, 0.0, 0).figures
    assert (short.own_rate, empty.end_to_end) == (0, 0)


def test_generate_compares_after_one_prefill(capsys: pytest.CaptureFixture[str]) -> None:
    """The late first token of the second one gains it nothing."""
    answers = [answer("plain", 1.0, 11.0), answer("gardener", 5.0, 6.0)]
    answered = Answered(answers, "exact", tied=True)
    found = as_object(answered)
    assert found["prefill"] == {"policy": "plain", "seconds": 1.0}
    ours = found["policies"]["gardener"]
    assert (ours["tokens_per_second"], ours["end_to_end"]) == (2.0, 11 / 6)
    summary(answered, "")
    said = capsys.readouterr().err
    row = next(line.split() for line in said.splitlines() if line.startswith("gardener"))
    assert row[:4] == ["gardener", "11", "2.0", "1.8"]
    assert "after that of plain (1.00 s)" in said


def test_generate_takes_no_prefill_from_an_answer_without_tokens() -> None:
    answers = [answer("gardener", 2.0, 6.0), answer("plain", 0.0, 0.0, 0)]
    assert as_object(Answered(answers, "exact", tied=True))["prefill"]["policy"] == "gardener"
    assert as_object(Answered(answers[1:], "exact", tied=True))["prefill"] == {
        "policy": "plain",
        "seconds": 0.0,
    }
