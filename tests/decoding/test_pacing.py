"""When a segment leaves: exact times for chosen costs, and a holder that keeps to them."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from fakes import target
from simulated import LAYERS, PROMPT, TOKENS, recorded, with_ring, write, written

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
from gardener.decoding.tree import Guess, Node
from gardener.draft.drafter import Drafter
from gardener.draft.ngram import NGram
from gardener.errors import RemoteError
from gardener.protocol.messages import Tensor
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.ring import SimulatedRing
from gardener.rings.simulate.worker import Meter
from gardener.runtime import clock
from gardener.runtime.trace import Record

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
        return room_at(self.flights, now) - now

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


# --- the holder, under a virtual clock -------------------------------------------------------


class Oracle:
    """A drafter that takes time, knows the text, and after so many calls answers no more."""

    name = "oracle"
    numbers = ""
    instant = False
    taps: tuple[int, ...] = ()

    def __init__(self, answers: int, seconds: float = 0.001) -> None:
        self.meter = Meter()
        self._answers, self._seconds = answers, seconds

    def open(self, prompt: Sequence[int]) -> "OracleDraft":
        return OracleDraft(self, prompt)

    def charge(self) -> None:
        """For one answer."""
        self._answers -= 1
        self.meter.charge(self._seconds if self._answers >= 0 else 1e9)


class OracleDraft:
    def __init__(self, oracle: Oracle, prompt: Sequence[int]) -> None:
        self._oracle = oracle
        self._text = list(prompt)

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        self._text += [node.token for node in nodes]

    def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        self._oracle.charge()
        return [
            (Guess(target([*self._text, *(node.token for node in path[1:])]), 0.9),)
            for path in paths
        ]


def segments(
    monkeypatch: pytest.MonkeyPatch,
    drafters: Sequence[Drafter],
    prompt: Sequence[int],
    draft: float,
    policy: str = "gardener",
) -> tuple[list[Record], float]:
    """One answer of a ring of 4 stages of 40 ms: what was sent, counted from its beginning, and the
    patience with a drafter that was seen to take `draft` seconds."""

    def meter(found: Sequence[Drafter], curve: Curve, meter: Meter) -> None:
        for drafter in found:
            if isinstance(drafter, Oracle):
                drafter.meter = meter

    async def scenario(ring: SimulatedRing) -> tuple[list[Record], float]:
        costs = ring.holder.costs
        costs.observe_draft(1, draft)
        patience = Patience().ends(0, costs.at(len(prompt)), 0.0)
        begin = clock.now()
        assert await write(ring, policy, prompt=prompt) == written(prompt)
        sent = [record for record in ring.holder.trace if record.what == "sent"]
        return [record._replace(at=record.at - begin) for record in sent], patience

    monkeypatch.setattr("gardener.rings.simulate.ring.meter_drafters", meter)
    return with_ring(scenario, 4, held=Library([recorded(prompt)], (LAYERS,)), drafters=drafters)


def test_a_root_leaves_after_its_patience_with_a_drafter_that_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, patience = segments(monkeypatch, [Oracle(0)], (1,), 0.001)
    assert [record.rows for record in sent] == [1] * TOKENS
    assert sent[0].at == pytest.approx(patience)
    # No root after it waits: the drafter is not at work on what could follow it.
    assert max(after.at - before.at for before, after in pairwise(sent)) < 0.166


def test_what_was_drafted_leaves_with_the_root_when_the_drafter_falls_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, patience = segments(monkeypatch, [Oracle(3)], (1,), 0.001)
    assert sent[0].items == (0, 1, 2, 3)
    assert 0.003 < sent[0].at <= 0.003 + patience + 1e-6


def test_a_root_does_not_wait_for_a_drafter_that_is_known_to_be_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, _ = segments(monkeypatch, [Oracle(0)], (1,), 1.0)
    assert sent[0].at == 0.0


def test_a_free_drafter_goes_on_where_the_other_one_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, _ = segments(monkeypatch, [NGram(), Oracle(0)], PROMPT, 0.001)
    assert sum(record.rows for record in sent) > TOKENS + len(PROMPT)


@pytest.mark.parametrize("policy", ["gardener", "pipedec"])
def test_segments_leave_when_a_stage_is_free_for_them(
    monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    sent, _ = segments(monkeypatch, [Oracle(999)], (1,), 0.001, policy)
    gaps = [after.at - before.at for before, after in pairwise(sent)]
    assert min(gaps) == pytest.approx(0.040, abs=1e-4)
    # All stages are busy, though nothing has come back yet.
    assert gaps[0] == pytest.approx(0.040, abs=1e-4)


def test_the_pieces_of_a_tree_leave_together_where_a_policy_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, _ = segments(monkeypatch, [Oracle(999)], (1,), 0.001, "chunked")
    assert min(after.at - before.at for before, after in pairwise(sent)) == 0.0
