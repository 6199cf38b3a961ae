"""When speculation is turned off, and on again."""

import pytest

from gardener.decoding.payoff import LONGEST, STRETCH, Payoff


def emit(payoff: Payoff, guessing: float, plain: float, tokens: int) -> list[bool]:
    """Tokens one by one, at these seconds each; whether each was guessed."""
    modes = []
    for _ in range(tokens):
        modes.append(payoff.speculating)
        payoff.emitted(1, guessing if payoff.speculating else plain)
    return modes


def test_guesses_that_pay_stay_on() -> None:
    assert all(emit(Payoff(plain=1.0), 0.6, 1.0, 20 * STRETCH))


def test_guesses_that_do_not_pay_are_turned_off_and_tried_again_ever_more_seldom() -> None:
    payoff = Payoff(plain=1.0)
    modes = emit(payoff, 1.3, 1.0, 100 * STRETCH)
    assert payoff.dearer == pytest.approx(1.3)
    stretches = modes[::STRETCH]
    assert stretches[:8] == [True, False, True, False, False, True, False, False]
    assert sum(stretches) < 15
    gaps = "".join("g" if mode else "." for mode in stretches).split("g")
    assert max(map(len, gaps)) == LONGEST


def test_an_estimate_that_was_too_good_costs_one_stretch() -> None:
    modes = emit(Payoff(plain=0.5), 0.8, 1.0, 50 * STRETCH)
    assert modes.count(False) == STRETCH


def test_the_estimate_may_change_until_it_was_tried() -> None:
    payoff = Payoff(plain=0.5)
    payoff.expect(0.9)
    assert all(emit(payoff, 0.8, 1.0, 2 * STRETCH)), "0.5 would have been less"
    payoff.expect(0.7)
    emit(payoff, 0.8, 1.0, 2 * STRETCH)
    payoff.expect(0.1)
    assert payoff.plain == 1.0, "that is what was seen"


def test_it_comes_back_when_guesses_pay_again() -> None:
    payoff = Payoff(plain=1.0)
    emit(payoff, 1.5, 1.0, 10 * STRETCH)
    assert all(emit(payoff, 0.5, 1.0, 60 * STRETCH)[-20 * STRETCH :])


def test_the_first_try_that_pays_is_enough() -> None:
    """What guesses took long ago says nothing any more."""
    payoff = Payoff(plain=1.0)
    emit(payoff, 1.5, 1.0, 40 * STRETCH)
    modes = emit(payoff, 0.8, 1.0, (LONGEST + 10) * STRETCH)
    assert all(modes[modes.index(True) :])


def test_one_slow_stretch_turns_nothing_off() -> None:
    payoff = Payoff(plain=1.0)
    emit(payoff, 0.8, 1.0, 4 * STRETCH)
    assert all(emit(payoff, 1.2, 1.0, STRETCH))
    assert all(emit(payoff, 0.8, 1.0, 4 * STRETCH))


def test_where_guesses_were_right_after_all_the_next_pause_is_short() -> None:
    payoff = Payoff(plain=1.0)
    emit(payoff, 1.5, 1.0, 40 * STRETCH)  # pauses are long now
    while payoff.speculating:
        emit(payoff, 1.5, 1.0, STRETCH)
    while not payoff.speculating:
        emit(payoff, 1.5, 9.0, STRETCH)  # it is slower without them
    emit(payoff, 1.5, 9.0, 4 * STRETCH)
    modes = emit(payoff, 99.0, 0.1, 4 * STRETCH)[::STRETCH]
    off = modes.index(False)
    assert modes[off : off + 2] == [False, True]


def test_several_tokens_at_once_count_as_several() -> None:
    payoff = Payoff(plain=1.0)
    for _ in range(STRETCH):
        payoff.emitted(4, 4 * 0.5)
    assert payoff.speculating
