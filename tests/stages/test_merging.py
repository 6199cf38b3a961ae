"""Whether segments of one request share a pass: by what passes take, and how many stages follow."""

from collections.abc import Sequence

import pytest
from loopback import card, run, slow
from test_desk import ROOT, Table, segment

from gardener.decoding.curves import Curve
from gardener.protocol.messages import Open
from gardener.stages.merging import APART, Merging

FLAT = ((1, 0.010), (64, 0.010))
BENT = ((1, 0.010), (16, 0.010), (32, 0.012), (64, 0.030))
STEEP = ((1, 0.010), (2, 0.020))


@pytest.mark.parametrize(
    ("curve", "ahead", "pays"),
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
    curve: Sequence[tuple[int, float]], ahead: int, pays: bool
) -> None:
    assert Merging(Curve(tuple(curve)), ahead).pays(1, 16, 16) == pays


def test_a_third_segment_holds_up_two_others() -> None:
    # Alone each takes 10 ms, 48 rows 21: 63 ms for the three against 10 + 20 + 30 at the last one.
    assert Merging(Curve(BENT)).pays(1, 16, 16)
    assert not Merging(Curve(BENT)).pays(2, 32, 32)


def test_a_stage_that_was_not_measured_merges_nothing() -> None:
    assert not APART.pays(1, 1, 1)
    assert not Merging.of(card(1, 4)).pays(1, 1, 1)


@pytest.mark.parametrize(("number", "ahead"), [(1, 4), (3, 2), (4, 1)])
def test_a_card_tells_how_many_stages_are_ahead(number: int, ahead: int) -> None:
    assert Merging.of(card(number, 4)).ahead == ahead


@pytest.mark.parametrize(
    ("merging", "passes"),
    [(Merging(Curve(FLAT)), [[1], [2, 1, 1]]), (Merging(Curve(STEEP), 2), [[1], [2], [1], [1]])],
)
def test_segments_of_one_request_stay_apart_unless_it_pays(
    merging: Merging, passes: list[list[int]]
) -> None:
    async def scenario() -> None:
        table = Table(merging=merging)
        table.stage.trouble = slow(0.05)
        table.scheduler.open(Open(9, 1, 64))
        table.scheduler.submit(segment(0, ROOT))
        table.scheduler.submit(segment(1, (1, 0, 1), (2, 0, 1)))
        table.scheduler.submit(segment(2, (3, 1, 2)))
        table.scheduler.submit(segment(3, (4, 2, 2)))
        await table.settle()
        assert [each.seq for each in table.out] == [0, 1, 2, 3]
        assert table.stage.passes == passes
        table.worker.close()

    run(scenario)


def test_segments_of_different_requests_are_merged_whatever_it_costs() -> None:
    async def scenario() -> None:
        table = Table(merging=Merging(Curve(STEEP), 4))
        table.stage.trouble = slow(0.05)
        for request in (7, 8, 9):
            table.scheduler.open(Open(request, 1, 64))
            table.scheduler.submit(segment(0, ROOT, request=request))
        table.scheduler.submit(segment(1, (1, 0, 1), request=7))
        await table.settle()
        assert table.stage.passes == [[1], [1, 1, 1]]
        table.worker.close()

    run(scenario)
