"""The round is given the time: what leaves when, to the millisecond, and what it learns."""

from collections.abc import Sequence
from typing import Any

import pytest
from fakes import Alone

from gardener.decoding.costs import Costs
from gardener.decoding.curves import Curve
from gardener.decoding.events import Abort, Command, Emit, Finish, Grow, Grown, Judged, Send
from gardener.decoding.limits import Limits
from gardener.decoding.pacing import GRACE, MOMENT, PATIENCE
from gardener.decoding.payoff import STRETCH, Payoff
from gardener.decoding.policy import POLICIES, Bounds, make
from gardener.decoding.speculation import Speculation
from gardener.decoding.tree import Guess
from gardener.errors import RemoteError
from gardener.protocol.messages import Close, Segment, Timing, Verdict

LIMITS = Limits(100, 400)
TICK = 0.030
SLOW = Costs([Curve(((1, TICK),))] * 3)
"""Three stages of 30 ms whatever the rows: a segment every tick, a verdict after three."""


WAITING = {"serial", "chunked", "chunked-80", "flowspec", "flowspec-80"}
"""Policies that by their nature wait for the drafter, or for all verdicts."""


def begin(
    policy: str = "gardener",
    prompt: Sequence[int] = (1,),
    costs: Costs = SLOW,
    payoff: Payoff | None = None,
    limits: Limits = LIMITS,
    **more: Any,
) -> Alone:
    bounds = Bounds(rows=1, floor=0.1)
    speculation = Speculation(7, prompt, make(policy, bounds), limits, **more)
    return Alone(speculation, costs, payoff or Payoff(1.0))


def grown(*children: tuple[int, int, float], source: int = 0, seconds: float = 0.0) -> Grown:
    """Children are (parent, token, probability), one for each node asked about."""
    each = tuple((parent, (Guess(token, odds),)) for parent, token, odds in children)
    return Grown(each, source, seconds)


def judged(seq: int, picks: dict[int, int], times: tuple[Timing, ...] = ()) -> Judged:
    return Judged(Verdict(7, seq, tuple(picks), tuple(picks.values()), times))


def rows(commands: Sequence[Command]) -> list[tuple[int, ...]]:
    """Ids of the segments among them."""
    sent = [each.message for each in commands if isinstance(each, Send)]
    return [message.ids for message in sent if isinstance(message, Segment)]


def chain(made: Alone, now: float, length: int) -> list[Command]:
    """Start, with a chain of likely guesses below the root."""
    commands = made.start(now)
    for node in range(length):
        commands += made.handle(grown((node, node + 2, 0.9)), now)
    return commands


def test_segments_leave_a_tick_apart_and_it_wants_to_be_woken_for_each() -> None:
    made = begin()
    assert rows(chain(made, 10.0, 3)) == [(0,)]
    assert made.wake == pytest.approx(10.0 + TICK)
    assert made.wait(10.0 + TICK / 2) == [], "woken too early, it only says so again"
    assert made.wake == pytest.approx(10.0 + TICK)
    assert rows(made.wait(10.0 + TICK)) == [(1,)]
    assert made.wake == pytest.approx(10.0 + 2 * TICK)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_urgent_root_leaves_at_once_and_so_does_what_is_not_paced(policy: str) -> None:
    made = begin(policy)
    sent = rows(chain(made, 10.0, 100))  # until every policy has all the guesses that it wants
    assert sent[0][0] == 0
    paced = policy in {"gardener", "pipedec", "pipedec-16"}
    assert (made.wake is not None) == paced, "the others send all that they have for their window"
    commands = made.handle(judged(0, dict.fromkeys(sent[0], 1)), 10.0 + 1e-4)
    assert commands[0] == Emit((1,)), "nobody guessed it"
    commands += made.handle(grown((made.speculation.tree.root, 5, 0.9)), 10.0 + 1e-4)
    commands += made.wait(10.0 + 2e-4 + MOMENT)
    roots = [ids[0] for ids in rows(commands)]
    assert policy in WAITING or roots[0] == made.speculation.tree.root, (
        "it waits a moment, not a tick"
    )


def test_a_root_waits_for_a_drafter_as_long_as_its_patience_lasts() -> None:
    costs = Costs([Curve(((1, TICK),))] * 3)
    costs.observe_draft(1, 0.001)
    made = begin(costs=costs)
    assert rows(made.start(10.0)) == [], "what the drafter says may leave with it"
    patience = 10.0 + PATIENCE * 0.001 + MOMENT
    assert made.wake == pytest.approx(patience)
    assert rows(made.wait(patience)) == [(0,)]


def test_a_verdict_that_is_about_to_come_is_waited_for() -> None:
    made = begin(costs=Costs([Curve(((1, TICK),))]))  # one stage: verdict and room come together
    chain(made, 10.0, 3)
    assert made.wake == pytest.approx(10.0 + TICK + GRACE * TICK)
    commands = made.handle(judged(0, {0: 2}), 10.0 + TICK)
    assert commands[0] == Emit((2,))
    assert rows(commands) == [(1,)], "it is there: the next segment leaves with what it says"


def test_a_drafter_that_answers_at_once_is_heard_before_anything_leaves() -> None:
    made = begin(instant=(True,))
    commands = made.start(10.0)
    assert commands[-1] == Grow((0,))
    assert rows(commands) == []
    assert made.wake is None, "its answer is the next event"
    said = made.handle(grown((0, 2, 0.9)), 10.0)
    assert said == [Grow((1,))]
    assert rows(made.handle(Grown(((1, ()),)), 10.0)) == [(0,)]


def test_what_passes_and_calls_take_goes_into_the_costs_of_the_ring() -> None:
    costs = Costs([Curve(((1, TICK),))])
    made = begin("plain", costs=costs)
    made.start(0.0)
    made.handle(judged(0, {0: 5}, (Timing(0, 90_000, 1),)), 0.2)
    assert costs.round_trip(1) == pytest.approx(TICK), "the prompt is another kind of work"
    assert made.stage_times.segments == 0
    made.handle(judged(1, {1: 5}, (Timing(0, 60_000, 1),)), 0.3)
    assert costs.stage(0, 1) > TICK
    assert made.stage_times.compute == pytest.approx([0.06])
    assert made.stage_times.flight == pytest.approx(0.1)
    assert costs.draft(1) == 0.0
    made.handle(Grown(((0, ()),), seconds=0.004), 0.3)
    assert costs.draft(1) == pytest.approx(0.004)
    quick = begin("plain", costs=costs, instant=(True,))
    quick.handle(Grown(((0, ()),), seconds=1.0), 0.3)
    assert costs.draft(1) == pytest.approx(0.004), "a drafter that answers at once is free"


def test_the_costs_of_a_round_are_those_of_its_text() -> None:
    costs = Costs([Curve(((1, 0.01),))], long=[(1000, Curve(((1, 0.05),)))])
    long, short = (begin("plain", (3,) * size, costs) for size in (200, 1))
    assert long.costs.stage(0, 1) > short.costs.stage(0, 1)
    assert long.costs.context == 200
    long.start(0.0)
    long.handle(judged(0, {}), 1.0)
    long.handle(judged(1, {199: 5}), 2.0)
    long.handle(judged(2, {200: 5}), 3.0)
    assert long.costs.context == 201


def test_guesses_that_do_not_pay_are_left_out_until_they_are_tried_again() -> None:
    payoff = Payoff(1.0)
    made = begin(payoff=payoff)
    made.start(0.0)
    now, seq = 0.0, 0
    while payoff.speculating:
        assert seq < 4 * STRETCH
        now += 10.0  # a token takes much longer than a round trip without guesses
        made.handle(Grown(((made.speculation.tree.root, ()),)), now)
        made.wait(now)
        made.handle(judged(seq, {made.speculation.tree.root: 9}), now)
        seq += 1
    assert STRETCH <= seq <= STRETCH + 2
    assert made.speculation.counts.plain == 0
    now += 1.0
    made.wait(now)
    made.handle(judged(seq, {made.speculation.tree.root: 9}), now)
    assert made.speculation.counts.plain == 1


@pytest.mark.parametrize(("reason", "tells"), [("lost", False), ("failed", True)])
def test_an_aborted_request_is_closed_where_there_is_somebody_to_tell(
    reason: str, tells: bool
) -> None:
    made = begin()
    chain(made, 0.0, 2)
    closed: list[Command] = [Send(Close(7))] if tells else []
    assert made.handle(Abort(reason), 0.1) == [*closed, Finish(reason)]
    assert made.speculation.finished == reason
    assert made.wake is None
    assert made.wait(9.0) == []
    assert made.handle(judged(0, {0: 2}), 9.0) == []


def test_a_verdict_that_is_not_due_is_refused_and_teaches_nothing() -> None:
    made = begin("plain")
    made.start(0.0)
    with pytest.raises(RemoteError, match="segment 3, but the next one due is 0"):
        made.handle(judged(3, {0: 2}), 1.0)
    assert made.stage_times.segments == 0
