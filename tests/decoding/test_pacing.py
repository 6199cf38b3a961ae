"""When a segment leaves: exact times for chosen costs."""

import math

import pytest

from gardener.decoding.costs import Costs
from gardener.decoding.curves import Curve, Hop
from gardener.decoding.flights import Flight, Flights
from gardener.decoding.pacing import (
    GRACE,
    INSTANT,
    MOMENT,
    PATIENCE,
    WORTH,
    Patience,
    room_at,
    verdict_in,
)
from gardener.errors import RemoteError

SLOWEST = Curve(((1, 0.030), (16, 0.030), (32, 0.060)))
QUICK = Curve(((1, 0.010), (32, 0.010)))


class Pace:
    """Segments that leave and come back, and what follows from their ledger."""

    def __init__(self, costs: Costs) -> None:
        self.costs, self.flights, self.seq = costs, Flights(), 0

    def sent(self, now: float, rows: int) -> None:
        tick, due = self.costs.tick(rows), now + self.costs.round_trip(rows)
        self.flights.leave(Flight(self.seq, tuple(range(rows)), 0, now, tick, due))
        self.seq += 1

    def judged(self) -> None:
        assert self.flights.oldest is not None
        self.flights.land(self.flights.oldest.seq)

    def wait(self, now: float) -> float:
        return room_at(self.flights.newest, self.flights.oldest, now) - now

    def verdict_in(self, now: float) -> float:
        return verdict_in(self.flights, now)


def pacer(*stages: Curve, delay: float = 0.0) -> Pace:
    return Pace(Costs(stages, (Hop(delay),) * (len(stages) + 1)))


def far() -> Pace:
    """A ring in which a row takes 30 ms at the slowest stage and 50 ms in all."""
    return pacer(QUICK, SLOWEST, QUICK)


def near(back: float = 0.002) -> Pace:
    """A ring of one stage: verdicts come `back` seconds after it could take the next segment."""
    return pacer(SLOWEST, delay=back / 2)


def test_an_empty_ring_has_room() -> None:
    assert far().wait(0.0) == 0.0
    assert far().wait(1e6) == 0.0


@pytest.mark.parametrize(("rows", "tick"), [(1, 0.030), (16, 0.030), (24, 0.045), (32, 0.060)])
def test_the_next_segment_is_due_when_the_slowest_stage_is_free(rows: int, tick: float) -> None:
    # The verdict would be waited for if it came shortly after; here it takes three times as long.
    pace = pacer(SLOWEST, SLOWEST, SLOWEST)
    pace.sent(10.0, rows)
    assert pace.wait(10.0) == pytest.approx(tick)
    assert pace.wait(10.0 + 0.6 * tick) == pytest.approx(0.4 * tick)
    assert pace.wait(10.0 + tick) == 0.0
    assert pace.wait(99.0) == 0.0


def test_every_segment_moves_the_time_on() -> None:
    pace = far()
    pace.sent(10.0, 1)
    pace.sent(10.02, 32)  # an urgent one, in between
    assert pace.wait(10.02) == pytest.approx(0.060)


def test_a_slow_link_is_a_stage_too() -> None:
    costs = Costs([QUICK], [Hop(0.0, 1000.0), Hop(1.0)], [50, 0])
    pace = Pace(costs)
    pace.sent(0.0, 4)
    assert pace.wait(0.0) == pytest.approx(0.2)


def test_a_verdict_that_is_due_shortly_after_is_waited_for_and_a_little_longer() -> None:
    pace = near()
    pace.sent(10.0, 1)
    verdict = 10.032
    assert pace.wait(10.0) == pytest.approx(verdict + GRACE * 0.030 - 10.0)
    assert pace.wait(10.030) > 0  # the stage is free, but more is known in 2 ms
    late = verdict + GRACE * 0.030
    assert pace.wait(late - 0.001) == pytest.approx(0.001)
    assert pace.wait(late) == 0.0  # it does not come: go on without it


def test_once_the_verdict_is_there_nothing_else_is_waited_for() -> None:
    pace = near()
    pace.sent(10.0, 1)
    pace.judged()
    assert pace.wait(10.029) == pytest.approx(0.001)
    assert pace.wait(10.032) == 0.0


@pytest.mark.parametrize(("share", "waits"), [(0.99, True), (1.01, False)])
def test_a_verdict_that_is_due_much_later_is_not_waited_for(share: float, waits: bool) -> None:
    pace = near(WORTH * 0.030 * share)
    pace.sent(10.0, 1)
    assert (pace.wait(10.030) > 0) == waits


def test_a_verdict_that_comes_before_the_stage_is_free_delays_nothing() -> None:
    pace = pacer(QUICK, SLOWEST, QUICK)  # verdicts after 50 ms, segments every 30 ms
    pace.sent(10.0, 1)
    pace.sent(10.030, 1)  # the next one is due at 10.06, the first verdict at 10.05
    assert pace.wait(10.030) == pytest.approx(0.030)
    pace.judged()
    assert pace.wait(10.050) == pytest.approx(0.010)


def test_no_wait_is_so_short_that_a_timer_would_be_over_at_once() -> None:
    pace = far()
    pace.sent(0.0, 1)
    assert pace.wait(0.030 - INSTANT / 2) == 0.0
    assert pace.wait(0.030 - INSTANT * 2) == pytest.approx(INSTANT * 2)


def test_the_next_verdict_is_that_of_the_oldest_segment() -> None:
    pace = far()
    assert pace.verdict_in(10.0) == math.inf
    pace.sent(10.0, 1)
    pace.sent(10.030, 1)
    assert pace.verdict_in(10.030) == pytest.approx(0.020)
    pace.judged()
    assert pace.verdict_in(10.050) == pytest.approx(0.030)
    pace.judged()
    assert pace.verdict_in(10.080) == math.inf


def test_a_late_verdict_may_come_at_any_moment_until_it_is_given_up() -> None:
    pace = far()
    pace.sent(10.0, 1)
    assert pace.verdict_in(10.0505) == 0.0
    assert pace.verdict_in(10.050 + GRACE * 0.030 + 0.001) == math.inf


def test_a_verdict_of_a_segment_that_nobody_sent_is_refused() -> None:
    pace = far()
    with pytest.raises(RemoteError, match="segment 0, but the next one due is none"):
        pace.flights.land(0)
    assert pace.verdict_in(0.0) == math.inf


def test_patience_follows_what_a_call_of_the_drafter_takes() -> None:
    assert Patience().ends(7, Costs.flat(1), 1.0) - 1.0 == pytest.approx(MOMENT)
    slow = Costs.flat(1, draft=0.02)
    assert Patience().ends(7, slow, 1.0) - 1.0 == pytest.approx(PATIENCE * 0.02 + MOMENT)


def test_patience_counts_from_the_moment_when_the_root_could_first_have_left() -> None:
    patience, costs = Patience(), Costs.flat(1)
    patience.ends(7, costs, 1.0)
    assert patience.ends(7, costs, 1.0 + MOMENT) - (1.0 + MOMENT) == pytest.approx(0.0)
    assert patience.ends(8, costs, 1.0 + MOMENT) - (1.0 + MOMENT) == pytest.approx(MOMENT)
