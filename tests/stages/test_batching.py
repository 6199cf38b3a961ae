"""Whether segments of one request share a pass: by what passes take, and how many stages follow."""

from collections.abc import Sequence

import pytest
from loopback import card, run, slow
from test_scheduler import ROOT, Harness, segment

from gardener.decoding.curves import Curve
from gardener.protocol.messages import Open
from gardener.stages.batching import SEPARATE, BatchingPolicy

FLAT = ((1, 0.010), (64, 0.010))
BENT = ((1, 0.010), (16, 0.010), (32, 0.012), (64, 0.030))
STEEP = ((1, 0.010), (2, 0.020))


@pytest.mark.parametrize(
    ("curve", "left", "pays"),
    [
        (FLAT, 1, True),
        (FLAT, 16, True),
        # Two segments of 16: 24 ms against 10 + 20 at the last stage, 96 against 40 + 50 with
        # three more behind it.
        (BENT, 1, True),
        (BENT, 4, False),
        (STEEP, 1, False),
        (STEEP, 4, False),
    ],
)
def test_segments_are_merged_where_they_leave_the_ring_sooner(
    curve: Sequence[tuple[int, float]], left: int, pays: bool
) -> None:
    assert BatchingPolicy(Curve(tuple(curve)), left).pays(1, 16, 16) == pays


def test_a_third_segment_holds_up_two_others() -> None:
    # Alone each takes 10 ms, 48 rows 21: 63 ms for the three against 10 + 20 + 30 at the last one.
    assert BatchingPolicy(Curve(BENT)).pays(1, 16, 16)
    assert not BatchingPolicy(Curve(BENT)).pays(2, 32, 32)


def test_a_stage_that_was_not_measured_merges_nothing() -> None:
    assert not SEPARATE.pays(1, 1, 1)
    assert not BatchingPolicy.of(card(1, 4)).pays(1, 1, 1)


@pytest.mark.parametrize(("number", "left"), [(1, 4), (3, 2), (4, 1)])
def test_a_card_tells_how_many_stages_are_left(number: int, left: int) -> None:
    assert BatchingPolicy.of(card(number, 4)).stages_left == left


@pytest.mark.parametrize(
    ("batching", "passes"),
    [
        (BatchingPolicy(Curve(FLAT)), [[1], [2, 1, 1]]),
        (BatchingPolicy(Curve(STEEP), 2), [[1], [2], [1], [1]]),
    ],
)
def test_segments_of_one_request_stay_apart_unless_it_pays(
    batching: BatchingPolicy, passes: list[list[int]]
) -> None:
    async def scenario() -> None:
        harness = Harness(batching=batching)
        harness.stage.trouble = slow(0.05)
        harness.scheduler.open(Open(9, 1, 64))
        harness.scheduler.receive(segment(0, ROOT))
        harness.scheduler.receive(segment(1, (1, 0, 1), (2, 0, 1)))
        harness.scheduler.receive(segment(2, (3, 1, 2)))
        harness.scheduler.receive(segment(3, (4, 2, 2)))
        await harness.settle()
        assert [each.seq for each in harness.out] == [0, 1, 2, 3]
        assert harness.stage.passes == passes
        harness.worker.close()

    run(scenario)


def test_segments_of_different_requests_are_merged_whatever_it_costs() -> None:
    async def scenario() -> None:
        harness = Harness(batching=BatchingPolicy(Curve(STEEP), 4))
        harness.stage.trouble = slow(0.05)
        for request in (7, 8, 9):
            harness.scheduler.open(Open(request, 1, 64))
            harness.scheduler.receive(segment(0, ROOT, request=request))
        harness.scheduler.receive(segment(1, (1, 0, 1), request=7))
        await harness.settle()
        assert harness.stage.passes == [[1], [1, 1, 1]]
        harness.worker.close()

    run(scenario)
