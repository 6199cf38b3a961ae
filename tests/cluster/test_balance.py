"""Which layers stages should hold, by what they have measured."""

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gardener.cluster.plan.balance import (
    HeadQuant,
    MeasuredRing,
    MeasuredStage,
    Quant,
    balanced,
    measured_ring,
)
from gardener.errors import UserError
from gardener.model.checkpoint.slices import even_cut
from gardener.model.quants import HEAD_QUANTS, QUANTS
from gardener.protocol.messages import Card


def card(
    stage: int,
    first: int,
    end: int,
    layer: int,
    head: int = 0,
    *,
    memory: int = 1200,
    kv_room: int = 0,
) -> Card:
    """Of a stage in a model of 12 layers, or of the holder (0); times in milliseconds."""
    return Card(
        *(stage, f"oak{stage}", "0.1", first, end, 12, 64, "m", "bfloat16", "int4", memory),
        delay=250,
        kv_room=kv_room,
        layer=layer * 10**6,
        head=head * 10**6,
        head_quant="int8",
    )


HOLDER = card(0, 0, 0, 0)
RING = (HOLDER, card(1, 0, 6, 2), card(2, 6, 12, 4, 8))
"""The second machine is half as fast, and its head takes as long as two of its layers."""


def cuts(layers: int, stages: int) -> list[tuple[int, ...]]:
    """All ways to cut, as the numbers of layers."""
    ends = ((0, *middle, layers) for middle in combinations(range(1, layers), stages - 1))
    return [tuple(b - a for a, b in pairwise(each)) for each in ends]


@given(st.data())
def test_the_slowest_stage_is_as_fast_as_can_be(data: st.DataObject) -> None:
    """Against all cuts there are; of the best ones, that whose stages take least together."""
    layers = data.draw(st.integers(1, 8))
    stages = data.draw(st.integers(1, min(layers, 4)))
    costs = data.draw(st.lists(st.integers(1, 9), min_size=layers, max_size=layers))
    factors = data.draw(st.lists(st.integers(1, 9), min_size=stages, max_size=stages))
    most = data.draw(st.lists(st.integers(1, 8), min_size=stages, max_size=stages))
    head = data.draw(st.integers(0, 60))

    def worth(cut: Sequence[int]) -> tuple[int, int, int]:
        ends = [sum(cut[:k]) for k in range(stages + 1)]
        parts = [sum(costs[a:b]) for a, b in pairwise(ends)]
        times = [factor * part for factor, part in zip(factors, parts, strict=True)]
        times[-1] += head
        return max(times), sum(times), sum(each * each for each in times)

    possible = [
        cut
        for cut in cuts(layers, stages)
        if all(held <= bound for held, bound in zip(cut, most, strict=True))
    ]
    if not possible:
        with pytest.raises(UserError, match="does not fit: the stages can hold"):
            even_cut(costs, head, stages, factors=factors, most=most)
        return
    found = even_cut(costs, head, stages, factors=factors, most=most)
    sizes = [held.end - held.first for held in found]
    assert all(held <= bound for held, bound in zip(sizes, most, strict=True))
    assert worth(sizes) == min(map(worth, possible))


def test_a_stage_twice_as_slow_gets_half_as_much() -> None:
    """But for the head, which takes as long as two layers there. (With 9 and 3 layers the slowest
    one would be as fast, and a token would take longer.)"""
    alike = (HOLDER, RING[1], msgspec.structs.replace(RING[2], head=1))
    assert [held.end for held in balanced(measured_ring(alike)).cut] == [8, 12]
    found = balanced(measured_ring(RING))
    assert (found.now, found.then) == ([12.0, 32.0], [20.0, 16.0])
    assert found.changes


def test_what_it_brings_is_said_of_the_slowest_stage_and_of_plain_decoding() -> None:
    found = balanced(measured_ring(RING))
    assert found.ring.links_ms == pytest.approx(0.75)  # three links of 250 us
    assert found.plain(found.now) == pytest.approx(44.75)
    assert found.plain(found.then) == pytest.approx(36.75)
    facts = found.facts()
    assert facts["cut"] == ["0-9", "10-11"]
    assert msgspec.convert(facts["measured"], MeasuredRing) == found.ring


def test_every_stage_keeps_a_layer_however_slow_it_is() -> None:
    slow = measured_ring((HOLDER, card(1, 0, 6, 900), card(2, 6, 12, 1, 1)))
    assert [held.end for held in balanced(slow).cut] == [1, 12]


def test_a_ring_that_is_balanced_stays_as_it_is() -> None:
    ring = measured_ring((HOLDER, card(1, 0, 7, 2), card(2, 7, 12, 2, 4)))
    assert not balanced(ring).changes


def test_a_stage_that_has_not_measured_itself_is_named() -> None:
    for cards, number in (
        ((HOLDER, card(1, 0, 6, 0), card(2, 6, 12, 4, 8)), 1),
        ((HOLDER, card(1, 0, 6, 2), card(2, 6, 12, 4, 0)), 2),
    ):
        with pytest.raises(UserError, match=rf"stage {number} \(oak{number}\) has not measured"):
            measured_ring(cards)


def test_kinds_that_no_option_takes_are_no_ring() -> None:
    """They would go into lines to be pasted into a shell."""
    assert get_args(Quant) == QUANTS
    assert get_args(HeadQuant) == HEAD_QUANTS
    for field, place in (("dtype", "dtype"), ("quant", "quant"), ("head_quant", "quant_head")):
        odd = tuple(msgspec.structs.replace(each, **{field: "int4; reboot"}) for each in RING)
        with pytest.raises(UserError, match=rf"no ring to be cut: .* `\$.{place}`"):
            measured_ring(odd)


def test_memory_bounds_what_a_stage_may_hold() -> None:
    """The quick stage may give up half of its 390 bytes for keys and values: one layer's weights.
    The other one's embedding, or head, does not count as layers."""
    quick = card(1, 0, 6, 1, memory=600, kv_room=390)
    slow = card(2, 6, 12, 9, 9, memory=5000, kv_room=1)
    ring = measured_ring((HOLDER, quick, slow))
    assert [stage.most for stage in ring.stages] == [7, 6]
    assert [held.end for held in balanced(ring).cut] == [7, 12]
    assert [stage.most for stage in measured_ring(RING).stages] == [None, None]
    roomy = msgspec.structs.replace(quick, kv_room=10**9)
    assert balanced(measured_ring((HOLDER, roomy, slow))).cut[0].end == 11


@pytest.mark.parametrize(
    ("layers", "stages", "what"),
    [
        (12, [(0, 6, 1.0, 0.0), (7, 12, 1.0, 1.0)], "stage 2 holds layers 7 to 12"),
        (12, [(0, 6, 1.0, 0.0), (6, 6, 1.0, 1.0)], "stage 2 holds layers 6 to 6"),
        (13, [(0, 6, 1.0, 0.0), (6, 12, 1.0, 1.0)], "the stages hold 12 layers of 13"),
        (12, [(0, 6, 1.0, 0.0), (6, 12, 1.0, 0.0)], "which has the head, says no `head_ms`"),
    ],
)
def test_times_of_a_ring_that_cannot_be_are_refused(
    layers: int, stages: list[tuple[int, int, float, float]], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        MeasuredRing(layers, "m", tuple(MeasuredStage("oak", *each) for each in stages))
