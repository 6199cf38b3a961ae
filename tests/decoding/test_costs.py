"""What a ring costs: curves, and what observations make of them."""

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gardener.decoding.costs import GUESS, LONG, SHORT, Costs
from gardener.decoding.curves import Curve, Hop, steep
from gardener.protocol.messages import Card, Timing

RISING = Curve(((1, 0.010), (4, 0.012), (16, 0.020), (64, 0.080)))

curves = (
    st.dictionaries(st.integers(1, 200), st.floats(1e-6, 10.0), min_size=1, max_size=8)
    .map(lambda points: Curve(tuple(sorted(points.items()))))
)  # fmt: skip


def card(stage: int, **more: object) -> Card:
    fields: dict[str, object] = {
        "stage": stage,
        "name": "n",
        "version": "1",
        "first": max(stage - 1, 0) * 2,
        "end": stage * 2,
        "layers": 4,
        "width": 10,
        "model": "m",
        "dtype": "float32",
        "quant": "none",
        "memory": 1,
    }
    return Card(**{**fields, **more})  # type: ignore[arg-type]


# --- curves ----------------------------------------------------------------------------------


def test_a_curve_goes_straight_from_point_to_point() -> None:
    assert [RISING(rows) for rows in (0, 1, 4, 16, 64)] == [0.0, 0.010, 0.012, 0.020, 0.080]
    assert RISING(10) == pytest.approx(0.016)
    assert RISING(112) == pytest.approx(0.140)  # the last slope goes on


def test_below_its_first_point_a_curve_is_flat() -> None:
    curve = Curve(((8, 0.5), (16, 1.0)))
    assert [curve(rows) for rows in (-1, 0, 1, 8)] == [0.0, 0.0, 0.5, 0.5]


def test_one_point_holds_for_all_sizes() -> None:
    assert {Curve(((4, 0.5),))(rows) for rows in (1, 4, 1000)} == {0.5}


def test_a_measurement_that_fell_does_not_make_more_rows_cheaper() -> None:
    curve = Curve(((1, 0.03), (2, 0.01), (4, 0.05)))
    assert curve(1) == curve(2) == 0.01  # noise only ever makes a pass longer
    assert curve(3) == pytest.approx(0.03)


@pytest.mark.parametrize(
    "points",
    [(), ((0, 1.0),), ((2, 1.0), (1, 2.0)), ((1, 1.0), (1, 2.0)), ((1, -1.0),), ((1, inf),)],
)
def test_what_is_no_curve_is_refused(points: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(ValueError, match="curve"):
        Curve(points)


@settings(max_examples=50)
@given(curves, st.integers(0, 500), st.integers(0, 500))
def test_more_rows_never_take_less(curve: Curve, one: int, other: int) -> None:
    fewer, more = sorted((one, other))
    assert curve(fewer) <= curve(more)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (((1, 10), (4, 20), (8, 65), (64, 70)), "8 rows take 6.5 times as long as 1"),
        (((1, 10), (4, 35)), "4 rows take 3.5 times as long as 1"),
        (((1, 10), (4, 26)), "4 rows take 2.6 times as long as 1"),
        (((1, 10), (4, 25)), ""),
        (((1, 100), (2, 101)), ""),
        (((1, 10), (2, 20)), ""),
        (((1, 10), (8, 40), (64, 600)), ""),
        (((1, 10), (16, 600)), ""),
        (((16, 10), (32, 600)), ""),
        (((1, 10),), ""),
        (((1, 0), (8, 7)), ""),
        ((), ""),
    ],
)
def test_a_curve_tells_where_guesses_hardly_pay(
    points: tuple[tuple[int, float], ...], said: str
) -> None:
    assert steep(points).startswith(said)
    assert bool(steep(points)) == bool(said)


@settings(max_examples=30)
@given(curves, st.integers(0, 500), st.floats(0.01, 100.0))
def test_a_scaled_curve_is_so_many_times_as_high(curve: Curve, rows: int, factor: float) -> None:
    assert curve.scaled(factor)(rows) == pytest.approx(curve(rows) * factor)


def test_a_hop_takes_its_delay_and_the_time_of_the_bytes() -> None:
    assert Hop(0.5, 100.0)(50) == 1.0
    assert Hop()(10**9) == 0.0


# --- from cards ------------------------------------------------------------------------------


def test_costs_come_from_cards() -> None:
    costs = Costs.of(
        [
            card(0, delay=1000, bandwidth=100_000),
            card(1, costs=((1, 10_000), (4, 20_000)), delay=2000, bandwidth=56_000),
            card(2, costs=((1, 30_000), (4, 30_000)), delay=3000),
        ]
    )
    assert [costs.stage(k, 4) for k in (0, 1)] == [0.020, 0.030]
    # A row is 16 bytes and 10 numbers of 4 bytes: 56 in all, but into stage 1 and back only 16.
    assert [costs.link(k, 4) for k in (0, 1, 2)] == pytest.approx([0.00164, 0.006, 0.003])
    assert costs.tick(4) == costs.lead(4, 9) == 0.030
    assert costs.round_trip(4) == pytest.approx(0.050 + 0.00164 + 0.006 + 0.003)


def test_a_segment_follows_when_the_ring_may_hold_another_one() -> None:
    costs = Costs([Curve(((1, 0.010),)), Curve(((1, 0.030),))], (Hop(0.004), Hop(), Hop()))
    assert [costs.lead(1, window) for window in (1, 2, 9)] == pytest.approx([0.044, 0.030, 0.030])
    assert costs.lead(1, 1) == costs.round_trip(1)


def test_what_is_remembered_is_forgotten_when_it_changes() -> None:
    costs = Costs([Curve(((1, 0.010),))] * 2, long=[None, (1040, Curve(((1, 0.030),)))])

    def now() -> list[float]:
        return [costs.tick(1), costs.round_trip(1), *(curve(1) for curve in costs.stages)]

    assert now() == pytest.approx([0.010, 0.020, 0.010, 0.010])
    costs = costs.at(528)
    assert now() == pytest.approx([0.020, 0.030, 0.010, 0.020])
    costs.observe_stage(1, 1, 0.025)
    assert now()[0] == now()[3] > 0.020
    before = costs.round_trip(1)
    costs.observe(1, 0.1, [Timing(0, 10_000, 1), Timing(0, 20_000, 1)])
    assert costs.round_trip(1) > before


def test_a_slow_link_sets_the_tick() -> None:
    costs = Costs.of([card(1, costs=((1, 1000),), bandwidth=5600), card(2, costs=((1, 1000),))])
    assert costs.tick(10) == pytest.approx(0.1)


def test_features_are_carried_from_the_stage_that_adds_them() -> None:
    costs = Costs.of([card(1, bandwidth=1), card(2, bandwidth=1)], taps=(1, 4))
    assert [costs.link(k, 1) for k in (0, 1, 2)] == [0.0, 96.0, 96.0]


def test_picks_cost_no_hidden_state_on_the_way_back() -> None:
    ends = [card(1, bandwidth=1), card(2, bandwidth=1)]
    # A row is 16 bytes, and 40 of a hidden state or of a feature.
    assert [Costs.of(ends).link(k, 1) for k in (1, 2)] == [56.0, 16.0]
    assert [Costs.of(ends, taps=(4,)).link(k, 1) for k in (1, 2)] == [56.0, 56.0]
    assert Costs.of(ends[1:]).link(1, 3) == 48.0  # the only stage is the last one


def test_cards_without_curves_are_guessed_flat() -> None:
    costs = Costs.of([card(1), card(2)])
    assert {costs.stage(k, rows) for k in (0, 1) for rows in (1, 64)} == {GUESS}
    assert Costs.flat(2).tick(16) == GUESS
    assert Costs.flat(2, draft=0.1).draft(5) == 0.1


def test_a_longer_text_costs_what_was_measured_there() -> None:
    costs = Costs.of([card(1, costs=((1, 10_000), (16, 20_000)), long=((1, 12_000), (16, 40_000)))])
    assert costs.stage(0, 16) == 0.020
    costs = costs.at(LONG)
    assert costs.stage(0, 1) == pytest.approx(0.012)
    assert costs.stage(0, 16) == pytest.approx(0.040)
    costs = costs.at((LONG + SHORT) // 2)
    assert costs.stage(0, 16) == pytest.approx(0.030)
    costs = costs.at(2 * LONG - SHORT)
    assert costs.stage(0, 16) == pytest.approx(0.060)


def test_a_card_says_at_which_context_it_measured() -> None:
    costs = Costs.of([card(1, costs=((1, 1000),), long=((1, 2000),), context=64)])
    costs = costs.at(64)
    assert costs.stage(0, 1) == pytest.approx(0.002)


def test_a_long_measurement_below_the_short_one_adds_nothing() -> None:
    costs = Costs.of([card(1, costs=((1, 1000),), long=((1, 500),))])
    costs = costs.at(LONG)
    assert costs.stage(0, 1) == 0.001


def test_a_ring_has_a_stage_and_a_hop_more() -> None:
    with pytest.raises(ValueError, match="without stages"):
        Costs([])
    with pytest.raises(ValueError, match="2 hops"):
        Costs([RISING, RISING], [Hop(), Hop()])


# --- what is seen ----------------------------------------------------------------------------


def test_a_guess_takes_the_first_thing_that_is_seen() -> None:
    costs = Costs.flat(1)
    costs.observe_stage(0, 4, 0.5)
    assert costs.stage(0, 1) == pytest.approx(0.5)


def test_a_measured_curve_keeps_its_shape_and_takes_the_level() -> None:
    costs = Costs([RISING])
    for _ in range(100):
        costs.observe_stage(0, 4, 0.024)
    assert costs.stage(0, 4) == pytest.approx(0.024, rel=1e-3)
    assert costs.stage(0, 64) == pytest.approx(0.160, rel=1e-3)


def test_one_outlier_hardly_counts() -> None:
    costs = Costs([RISING])
    costs.observe_stage(0, 4, 100.0)
    assert costs.stage(0, 4) < 1.1 * RISING(4)


def test_a_level_follows_even_a_great_change() -> None:
    costs = Costs([RISING])
    for _ in range(200):
        costs.observe_stage(0, 16, 2.0)
    assert costs.stage(0, 16) == pytest.approx(2.0, rel=1e-3)


def test_what_says_nothing_changes_nothing() -> None:
    costs = Costs([RISING])
    costs.observe_stage(0, 0, 1.0)
    costs.observe_stage(0, 4, 0.0)
    costs.observe_draft(0, 1.0)
    assert costs.stage(0, 4) == RISING(4)
    assert costs.draft(4) == 0.0


@settings(max_examples=50)
@given(st.lists(st.floats(0.001, 0.1), min_size=1, max_size=50))
def test_a_level_stays_within_what_was_seen(seen: list[float]) -> None:
    costs = Costs.flat(1)
    for seconds in seen:
        costs.observe_stage(0, 1, seconds)
    assert min(seen) * 0.999 <= costs.stage(0, 1) <= max(seen) * 1.001


def test_the_drafter_is_fitted_with_level_and_slope() -> None:
    costs = Costs.flat(1)
    for step in range(400):
        nodes = 1 + step % 16
        costs.observe_draft(nodes, 0.010 + 0.001 * nodes)
    assert costs.draft(1) == pytest.approx(0.011, rel=0.1)
    assert costs.draft(32) == pytest.approx(0.042, rel=0.1)
    assert costs.draft(0) == 0.0


def test_sizes_that_are_alike_say_nothing_of_the_slope() -> None:
    costs = Costs.flat(1)
    for _ in range(20):
        costs.observe_draft(8, 0.02)
    assert {round(costs.draft(nodes), 9) for nodes in (1, 8, 64)} == {0.02}


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0.0, 1.0)), min_size=1, max_size=60))
def test_drafting_more_never_takes_less(seen: list[tuple[int, float]]) -> None:
    costs = Costs.flat(1)
    for nodes, seconds in seen:
        costs.observe_draft(nodes, seconds)
    times = [costs.draft(nodes) for nodes in range(1, 65)]
    assert min(times) >= -1e-9
    assert all(one <= other for one, other in pairwise(times))


def came_back(costs: Costs, rows: int, seconds: float) -> None:
    """A segment of `rows` rows, after some time; its stages took what was expected of them."""
    micros = (round(curve(rows) * 1e6) for curve in costs.stages)
    costs.observe(rows, seconds, [Timing(0, each, rows) for each in micros])


def test_a_circle_takes_what_it_was_seen_to() -> None:
    costs = Costs([RISING, RISING])
    assert costs.round_trip(4) == pytest.approx(0.024)
    for _ in range(20):
        came_back(costs, 4, 0.030)
    assert costs.round_trip(4) == pytest.approx(0.030)
    assert costs.round_trip(16) == pytest.approx(0.046)
    assert costs.tick(4) == 0.012  # it holds nobody else up


def test_links_that_were_taken_for_slower_are_put_right() -> None:
    costs = Costs([RISING], [Hop(0.1), Hop(0.1)])
    for _ in range(20):
        came_back(costs, 4, 0.022)
    assert costs.round_trip(4) == pytest.approx(0.022)
    for _ in range(20):
        came_back(costs, 4, 0.0)  # less than its stages: not to be believed
    assert costs.round_trip(4) == pytest.approx(0.012)


def test_one_slow_circle_hardly_counts() -> None:
    costs = Costs([RISING])
    for step in range(50):
        came_back(costs, 4, 0.020 + 0.001 * (step % 2))
    came_back(costs, 4, 60.0)
    assert costs.round_trip(4) < 0.022


def test_a_verdict_tells_of_its_stages_and_of_the_way() -> None:
    costs = Costs.flat(2)
    times = [Timing(5000, 20_000, 8), Timing(0, 30_000, 4)]
    costs.observe(4, 0.065, times)
    assert [costs.stage(k, 4) for k in (0, 1)] == pytest.approx([0.020, 0.030])
    assert costs.round_trip(4) == pytest.approx(0.060)


def test_a_pass_that_was_stopped_says_nothing_of_its_stage() -> None:
    costs = Costs.flat(1)
    costs.observe(4, 0.004, [Timing(0, 3000, 0)])
    assert costs.stage(0, 4) == GUESS


def test_facts_are_plain_and_complete() -> None:
    costs = Costs.of([card(0), card(1, costs=((1, 1000),), bandwidth=1000)])
    facts = costs.facts()
    assert facts["stages"] == [[0.001] * 7]
    assert [link["bytes_per_second"] for link in facts["links"]] == [None, 1000]
    assert facts["draft"] == [0.0] * 7
