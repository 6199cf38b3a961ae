"""Who should hold what, who could be left out, and what limits a ring, by what was measured."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planned import LAYERS, THREE, card, foretold, ring

from gardener.cluster.file import read_cluster
from gardener.cluster.plan.machines import DRAFTER, HOLDER, LINKS, Drift, HolderTime, Machines
from gardener.cluster.plan.plan import BEST, NOW, SEEN, Plan, Rates, Trials
from gardener.cluster.plan.rates import rate
from gardener.cluster.plan.unmeasured import needs
from gardener.decoding.curves import Curve, Hop
from gardener.errors import UserError
from gardener.holder.figures import Figures
from gardener.model.architecture import Architecture


def layers(machines: Machines) -> list[int]:
    return [each.end - each.first for each in machines.ring.stages]


def stage_ms(machines: Machines) -> list[float]:
    return [each.ms for each in machines.ring.stages]


def alone(machines: Machines) -> list[float]:
    """Milliseconds of a row alone, by the curves."""
    return [1e3 * curve(1) for curve in machines.curves]


def cuts(stages: int) -> list[tuple[int, ...]]:
    """All ways to cut, as the numbers of layers."""
    ends = ((0, *middle, LAYERS) for middle in combinations(range(1, LAYERS), stages - 1))
    return [tuple(b - a for a, b in pairwise(each)) for each in ends]


def slowest(cut: Sequence[int], layer: Sequence[int], head: float, most: Sequence[int]) -> float:
    """Of the stages with these layers, infinite if they do not fit."""
    if any(held > bound for held, bound in zip(cut, most, strict=True)):
        return inf
    times: list[float] = [held * each for held, each in zip(cut, layer, strict=True)]
    times[-1] += head
    return max(times)


@settings(max_examples=25)
@given(st.data())
def test_the_slowest_stage_is_as_fast_as_can_be_with_all_machines_or_all_but_one(
    data: st.DataObject,
) -> None:
    """Against all cuts there are, within what memory takes."""
    count = data.draw(st.integers(1, 4))
    held = data.draw(st.sampled_from(cuts(count)))
    layer = data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    head = data.draw(st.integers(1, 20))
    most = [data.draw(st.integers(each, LAYERS)) for each in held]
    ends = [sum(held[:k]) for k in range(count + 1)]
    cards = [
        card(k + 1, ends[k], ends[k + 1], layer[k], head * (k == count - 1), most=most[k])
        for k in range(count)
    ]
    now = ring(*cards)
    best = now.best()
    found = min(slowest(cut, layer, head, most) for cut in cuts(count))
    assert max(stage_ms(best)) == found
    assert alone(best) == pytest.approx(stage_ms(best))
    out = data.draw(st.integers(1, count))
    rest = [k for k in range(count) if k != out - 1]
    if not rest:
        with pytest.raises(UserError, match="it is the only one"):
            now.without(out)
        return
    head_there = head * layer[rest[-1]] / layer[-1] if out == count else head
    kept, room = [layer[k] for k in rest], [most[k] for k in rest]
    least = min(slowest(cut, kept, head_there, room) for cut in cuts(len(rest)))
    if least == inf:
        with pytest.raises(UserError, match="does not fit"):
            now.without(out)
        return
    less = now.without(out)
    assert max(stage_ms(less)) == pytest.approx(least)
    assert less.numbers == tuple(k + 1 for k in rest)
    assert alone(less) == pytest.approx(stage_ms(less))
    assert len(less.hops) == len(rest) + 1


def test_passes_of_other_layers_take_longer_by_what_a_row_alone_does() -> None:
    assert alone(THREE) == pytest.approx([4, 8, 12])
    best = THREE.best()
    assert layers(best) == [8, 3, 1]
    assert alone(best) == pytest.approx([8, 6, 6])
    assert [1e3 * curve(16) for curve in best.curves] == pytest.approx([16, 12, 12])
    assert best.best() is best


def test_a_link_that_never_was_is_as_slow_as_the_slower_one_in_its_place() -> None:
    """The wide and far one of two is not taken for narrow and far, either: for both."""
    to, on, far, back = THREE.hops
    assert THREE.without(2).hops == (to, Hop(5e-3, 1e6), back)
    assert THREE.without(1).hops == (Hop(200e-6, 1e6), far, back)
    assert THREE.without(3).hops == (to, on, Hop(5e-3))
    assert dict(THREE.links())["stage 1 > stage 2"] == pytest.approx(200e-6 + 128 / 1e6)
    assert THREE.without(2).links()[1][0] == "stage 1 > stage 3"


def test_who_gets_the_head_takes_longer_for_it_as_it_does_for_a_layer() -> None:
    less = ring(card(1, 0, 6, 3), card(2, 6, 12, 1, 4)).without(2)
    assert less.ring.stages[-1].head_ms == 12
    assert stage_ms(less) == [48]


def test_each_part_can_be_twice_as_fast() -> None:
    now = replace(THREE, draft=Curve(((1, 0.004),)), holder=HolderTime(2e-4, 1e-5))
    assert now.parts == ["stage 1", "stage 2", "stage 3", LINKS, DRAFTER, HOLDER]
    assert alone(now.faster("stage 2")) == pytest.approx([4, 4, 12])
    assert now.faster(LINKS).hops[1] == Hop(100e-6, 2e6)
    drafter = now.faster(DRAFTER).draft
    assert drafter is not None
    assert drafter(1) == 0.002
    assert now.faster(HOLDER).holder == HolderTime(1e-4, 5e-6)
    assert DRAFTER not in THREE.parts
    assert alone(THREE.without(1).faster("stage 3"))[1] == pytest.approx(
        alone(THREE.without(1))[1] / 2
    )


def test_a_ring_at_work_differs_from_what_it_has_measured() -> None:
    seen = THREE.seen(Drift((1.0, 2.0, 0.5), 0.003))
    assert alone(seen) == pytest.approx([4, 16, 6])
    assert seen.overhead == pytest.approx(0.001)
    assert THREE.seen(Drift((1.0,) * 3, -0.003)).overhead == 0


def test_a_plan_names_what_limits_and_who_slows() -> None:
    """Stage 2 is so far away that without it plain decoding is faster; but the others would be
    slower for each tick."""
    trials = Trials.of(THREE)
    plan = Plan(trials, foretold(trials), "gardener")
    assert plan.changes
    assert plan.limits[0].part == "stage 1"  # 8 ms, then 6 is the slowest
    assert plan.limits[0].guessing == pytest.approx(8 / 6)
    assert plan.limits[-1].guessing == pytest.approx(1)
    assert {share.part for share in plan.left_out} == {"stage 1", "stage 2", "stage 3"}
    without = next(share for share in plan.left_out if share.part == "stage 2")
    assert (without.plain > 1, without.guessing < 1) == (True, True)
    assert plan.slowing == []
    assert json.loads(json.dumps(plan.facts()))["layers"] == ["0-7", "8-10", "11"]


def test_a_machine_that_makes_the_ring_slower_is_named() -> None:
    """It holds no less than one layer, which takes it 50 ms."""
    trials = Trials.of(ring(card(1, 0, 6, 1), card(2, 6, 7, 50), card(3, 7, 12, 1, 1)))
    plan = Plan(trials, foretold(trials), "gardener")
    assert plan.slowing == ["stage 2"]
    assert plan.left_out[0].guessing == pytest.approx(50 / 7)


def test_a_machine_whose_memory_is_needed_cannot_be_left_out() -> None:
    trials = Trials.of(ring(card(1, 0, 8, 1, most=8), card(2, 8, 12, 1, 1, most=12)))
    assert list(trials.impossible) == ["stage 1"] or list(trials.impossible) == ["stage 2"]
    assert trials.impossible == {
        "stage 2": "a model of 12 layers does not fit: the stages can hold 8 layers at most"
    }
    alone = Trials.of(ring(card(1, 0, 12, 1, 1)))
    assert alone.impossible == {"stage 1": "it is the only one"}
    plan = Plan(alone, foretold(alone), "gardener")
    assert (plan.left_out, plan.changes) == ([], False)


def test_what_was_foretold_stands_beside_what_was_measured() -> None:
    drift = Drift((2.0, 2.0, 2.0), 0.0)
    trials = Trials.of(THREE, drift)
    rates = foretold(trials)
    plan = Plan(trials, rates, "gardener", (), Rates(40.0, 250 / 3), drift)
    off = plan.off(NOW)
    assert off is not None
    assert off.guessing == pytest.approx(2.0)  # 500 / 3 were foretold
    seen = plan.off(SEEN)
    assert seen is not None
    assert seen.guessing == pytest.approx(1.0)
    facts = plan.facts()
    assert facts["run"] == {"plain": 40.0, "guessing": 250 / 3}
    assert set(facts["foretold"]) == {"now", "seen", "best"}
    assert Plan(trials, rates, "gardener").off(BEST) is None


def test_layers_that_bring_nothing_that_can_be_told_are_not_recommended() -> None:
    """Whether guesses come true is chance: less than CHANCE says nothing."""
    trials = Trials.of(THREE)
    for gain, pays in ((0.99, False), (1.04, False), (1.06, True)):
        rates = foretold(trials) | {NOW: Rates(10.0, 20.0), BEST: Rates(10.0, gain * 20.0)}
        plan = Plan(trials, rates, "gardener")
        assert (plan.changes, plan.pays, plan.facts()["pays"]) == (True, pays, pays)


def test_a_stage_at_work_that_takes_other_times_than_it_had_measured_is_named() -> None:
    drift = Drift((0.69, 1.39, 1.41), 0.0)
    trials = Trials.of(THREE, drift)
    assert Plan(trials, foretold(trials), "gardener", drift=drift).unsteady == [
        "stage 1",
        "stage 3",
    ]
    assert Plan(trials, foretold(trials), "gardener").unsteady == []


def test_rates_count_from_the_end_of_one_prefill() -> None:
    plain = Figures("plain", 3, tokens=11, first_token=1.0, decode=10.0)
    quick = Figures("gardener", 3, tokens=11, first_token=1.5, decode=4.5)
    short = Figures("plain", 3, tokens=1, first_token=1.0)
    assert rate([plain, short], [plain, short]) == 1.0
    assert rate([plain, short], [quick, short]) == 2.0
    assert rate([short], [short]) == 0.0


FILE = """
model = "smollm2-135m"
quant = "int8"
dtype = "bfloat16"
[holder]
host = "127.0.0.1"
port = 7000
[stage.1]
host = "127.0.0.1"
port = 7001
[stage.2]
host = "127.0.0.1"
port = 7002
device = "cuda"
"""


def shape() -> Architecture:
    """16 weights of queries and so on, 24 of the rest: 40 a layer."""
    return Architecture(
        family="llama",
        layers=4,
        width=2,
        heads=1,
        kv_heads=1,
        head_dim=2,
        inner=4,
        vocab=100,
        eps=1e-5,
        tied=False,
        context=64,
        trained=64,
        windows=(None,) * 4,
        ropes=(),
        rope_of=(None,) * 4,
    )


def test_a_file_alone_tells_what_memory_a_model_takes(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(FILE)
    first, last = needs(read_cluster(path), shape())
    assert (first.held.end, last.held.first) == (2, 2)
    assert first.weights == 1.125 * 2 * 40 + 2 * 200
    assert last.weights == 1.125 * 2 * 40 + 1.125 * 200
    assert (first.token, last.token) == (2 * 2 * 2 * 4, 2 * 2 * 2 * 2)
    lines = FILE.replace("port = 7001", 'port = 7001\nlayers = "0-1"')
    path.write_text(lines.replace("port = 7002", 'port = 7002\nlayers = "2-9"'))
    with pytest.raises(UserError, match="there is no layer 9"):
        needs(read_cluster(path), shape())
