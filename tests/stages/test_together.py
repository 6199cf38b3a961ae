"""Segments that belong together are computed in one pass, and leave as such."""

import loopback
import msgspec
from loopback import run
from test_scheduler import ROOT, Harness, segment

from gardener.protocol.messages import Open, Segment


def root(request: int, more: bool) -> Segment:
    return msgspec.structs.replace(segment(0, ROOT, request=request), more=more)


def opened(*requests: int) -> Harness:
    harness = Harness()
    for request in requests:
        harness.scheduler.open(Open(request, 1, 64))
    return harness


def test_an_idle_stage_waits_for_the_rest_of_what_belongs_together() -> None:
    async def scenario() -> None:
        harness = opened(7, 8, 9)
        harness.scheduler.receive(root(7, True))
        harness.scheduler.receive(root(8, True))
        await harness.worker.run(lambda: None)
        assert harness.stage.passes == [], "the last one is still on its way"
        harness.scheduler.receive(root(9, False))
        await harness.settle()
        assert harness.stage.passes == [[1, 1, 1]]
        assert [each.more for each in harness.out] == [True, True, False]
        harness.worker.close()

    run(scenario)


def test_nothing_waits_for_a_segment_that_does_not_count_any_more() -> None:
    async def scenario() -> None:
        harness = opened(7, 8)
        harness.scheduler.receive(root(7, True))
        harness.scheduler.give_up(8)
        harness.scheduler.receive(root(8, False))
        await harness.settle()
        assert [(each.request, each.more) for each in harness.out] == [(7, False)]
        harness.worker.close()

    run(scenario)


def test_one_that_has_ended_meanwhile_is_not_announced_to_the_next_stage() -> None:
    async def scenario() -> None:
        harness = opened(7, 8)
        harness.stage.trouble = loopback.slow(0.05)
        harness.scheduler.receive(root(7, True))
        harness.scheduler.receive(root(8, False))
        harness.scheduler.close(8)
        await harness.settle()
        assert [(each.request, each.more) for each in harness.out] == [(7, False)]
        harness.worker.close()

    run(scenario)


def test_who_comes_after_a_lost_neighbour_is_not_made_to_wait() -> None:
    async def scenario() -> None:
        harness = opened(7)
        harness.scheduler.receive(root(7, True))
        harness.scheduler.clear()
        harness.scheduler.open(Open(8, 1, 64))
        harness.scheduler.receive(root(8, False))
        await harness.settle()
        assert [each.request for each in harness.out] == [8]
        harness.worker.close()

    run(scenario)
