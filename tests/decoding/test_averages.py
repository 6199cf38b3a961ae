"""Running averages: what one observation may do to them, and what many do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gardener.decoding.averages import OUTLIER, RATE, SURE, Level, Line, Mean


def test_a_new_level_is_the_geometric_mean_of_what_came() -> None:
    level = Level(0)
    for ratio in (1.0, 4.0):
        level.observe(ratio)
    assert level.value == pytest.approx(2.0)


@given(st.floats(1e-9, 1e9))
def test_a_settled_level_moves_by_little_at_a_time(ratio: float) -> None:
    level = Level(100)
    level.observe(ratio)
    assert 1 / OUTLIER**RATE * 0.999 <= level.value <= OUTLIER**RATE * 1.001


def test_a_line_is_found_and_followed() -> None:
    line = Line()
    for step in range(400):
        line.observe(1 + step % 8, 2.0 + 0.5 * (1 + step % 8))
    assert line.slope == pytest.approx(0.5, rel=0.25)
    assert line(4) == pytest.approx(4.0, rel=0.05)
    for step in range(400):
        line.observe(1 + step % 8, 4.0 + 1.0 * (1 + step % 8))
    assert line(4) == pytest.approx(8.0, rel=0.05)


def test_a_line_of_nothing_can_rise_again() -> None:
    line = Line()
    for _ in range(2 * SURE):
        line.observe(4, 0.0)
    line.observe(4, 1.0)
    assert line(4) > 0.0


def test_a_mean_may_be_negative_and_an_outlier_does_not_widen_its_bounds_much() -> None:
    mean = Mean()
    for step in range(50):
        mean.observe(-1.0 + 0.1 * (step % 2))
    assert mean.value == pytest.approx(-0.95, abs=0.02)
    for _ in range(3):
        mean.observe(1e6)
    assert mean.value < 0.0


def test_a_mean_of_equal_values_can_still_move() -> None:
    mean = Mean()
    for value in (0.0,) * 20 + (1.0,) * 100:
        mean.observe(value)
    assert mean.value == pytest.approx(1.0, abs=1e-3)
