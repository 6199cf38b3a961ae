"""Who waits for whom, and up to which moment: roots for drafters, drafters for verdicts."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from test_policy import BENT, BRANCHES, FLAT, LIKELIEST, SHAPE, costs, tree, view

from gardener.decoding.costs import Costs
from gardener.decoding.curves import Curve
from gardener.decoding.pacing import CALL, MOMENT, PATIENCE, Patience
from gardener.decoding.policy import Alternating, Gardener

# --- a root and the drafter ----------------------------------------------------------------------

HILLY = ((1, 0.010), (2, 0.012), (3, 0.020))
"""The second row costs a little, any further one much: root and one guess leave together."""


@pytest.mark.parametrize(
    ("curve", "growing", "longest"),
    [
        # All seven nodes are ready, which bring 3.246 tokens; each waits for so long. What is being
        # drafted brings 0.7 tokens for each true node asked about, one segment of 10 ms sooner.
        (FLAT, [0], 0.7 * 0.010 / (3.246 + 0.7)),
        (FLAT, [1], 0.42 * 0.010 / (3.246 + 0.42)),
        (FLAT, [0, 1], 1.12 * 0.010 / (3.246 + 1.12)),
        # Only the likeliest four are worth their time: 2.626 tokens.
        (BENT, [0], 0.7 * 0.010 / (2.626 + 0.7)),
        # Two rows leave, 1.6 tokens, and the next segment follows 12 ms after them.
        (HILLY, [0], 0.7 * 0.012 / (1.6 + 0.7)),
        (HILLY, [1], 0.42 * 0.012 / (1.6 + 0.42)),
    ],
)
def test_a_root_waits_while_that_brings_more_than_it_costs_what_is_ready(
    curve: Sequence[tuple[int, float]], growing: list[int], longest: float
) -> None:
    for share, waits in ((0.99, True), (1.01, False)):
        ring = costs(curve, draft=share * longest)
        chosen = Gardener(SHAPE).choose(view(BRANCHES, growing=growing, costs=ring))
        assert (chosen == []) == waits
        assert waits or chosen[0] == 0


def test_a_call_of_the_drafter_takes_what_it_takes_for_all_its_nodes() -> None:
    ring = costs()
    for nodes in (1, 2, 4, 8) * 50:
        ring.observe_draft(nodes, 0.0005 * nodes)
    one, three = ring.draft(1), ring.draft(3)
    brings = 0.7 * 0.62 * 0.010 / (3.246 + 0.7 * 0.62)  # nodes 2, 4 and 6 together
    assert one < brings < three, "or else the case says nothing"
    seen = view(BRANCHES, growing=[2, 4, 6], costs=ring)
    assert Gardener(SHAPE).choose(seen) == LIKELIEST
    assert Gardener(SHAPE).choose(replace(seen, costs=costs(draft=one))) == []


def test_patience_is_for_a_call_of_several_nodes() -> None:
    ring = Costs.flat(1)
    for nodes in (1, 2, 4, 8) * 50:
        ring.observe_draft(nodes, 0.010 * nodes)
    assert ring.draft(CALL) > 2 * ring.draft(1)
    left = Patience().ends(7, ring, 1.0) - 1.0
    assert left == pytest.approx(PATIENCE * ring.draft(CALL) + MOMENT)


# --- a drafter and the verdict -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draft", "verdict_in", "asked"),
    [
        (0.004, 0.003, False),  # it would be at work when the verdict comes
        (0.004, 0.0, False),  # any moment now
        (0.004, 0.005, True),  # it will be done by then
        (0.004, float("inf"), True),  # none is expected
        (0.006, 0.003, True),  # more than half a tick: it would be idle for too long
    ],
)
def test_a_quick_drafter_is_free_when_a_verdict_comes(
    draft: float, verdict_in: float, asked: bool
) -> None:
    seen = view(BRANCHES, sent={0}, verdict_in=verdict_in, costs=costs(draft=draft))
    assert (Gardener(SHAPE).grow(seen) != []) == asked
    # Not where everything waits for it, nor one that answers at once.
    assert Gardener(SHAPE).grow(replace(seen, sent=set())) != []
    assert Gardener(SHAPE).grow(replace(seen, instant=True)) != []


# --- where cores are shared: rounds long past ----------------------------------------------------


def test_what_was_easy_long_ago_makes_no_row_dear_now() -> None:
    """Texts change character: the price of time is that of the last rounds."""
    ring = Costs([Curve(((1, 0.010), (64, 0.136)))])  # 2 ms for each further row
    sure = tree(*((node, 0.99) for node in range(40)))
    vague = tree((0, 0.4), (0, 0.35), (1, 0.8), (2, 0.8), (3, 0.7), (4, 0.6))
    old, new = Alternating(SHAPE), Alternating(SHAPE)
    for _ in range(100):
        old.choose(view(sure, costs=ring))
    after = [len(policy.choose(view(vague, costs=ring))) for policy in (old, new)]
    assert after[0] < after[1], "rows are dear at first"
    for _ in range(100):
        after = [len(policy.choose(view(vague, costs=ring))) for policy in (old, new)]
    assert after[0] == after[1]
