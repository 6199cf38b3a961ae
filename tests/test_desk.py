"""A desk with a fake stage: order, batches, and what is left when something fails."""

import asyncio
from collections.abc import Awaitable
from typing import cast

import pytest
from rings import FakeStage, run, slow, until

from gardener import desk as desks
from gardener.compute import Worker
from gardener.desk import Desk
from gardener.errors import RemoteError
from gardener.messages import Advance, Open, Segment, Verdict
from gardener.stages.stage import Stage
from gardener.trace import Trace


class Table:
    """A desk of a stage that is the first and the last, and what comes off it."""

    def __init__(self) -> None:
        self.stage = FakeStage()
        self.worker = Worker("stage")
        self.out: list[Segment | Verdict] = []
        self.failures: list[tuple[int, int, str]] = []
        self.slow: Awaitable[None] | None = None
        self.trace = Trace()
        self.desk = Desk(
            cast(Stage, self.stage),
            self.worker,
            self.trace,
            self.out.append,
            lambda: self.slow,
            lambda request, seq, error: self.failures.append((request, seq, repr(error))),
        )

    async def settle(self) -> None:
        """Until nothing waits here or at the worker."""
        await until(lambda: not self.desk.waiting and not self.desk._busy)
        await self.worker.run(lambda: None)


def segment(seq: int, *nodes: tuple[int, int, int], request: int = 9) -> Segment:
    """`nodes`: id, parent, position of each row."""
    ids, parents, positions = zip(*nodes, strict=True)
    return Segment(request, seq, ids, parents, positions, (1,) * len(ids), None, ())


ROOT = (0, -1, 0)


def test_segments_leave_in_the_order_they_came_and_share_passes() -> None:
    async def scenario() -> None:
        table = Table()
        table.stage.trouble = slow(0.05)
        table.desk.open(Open(9, 1, 64))
        table.desk.open(Open(8, 1, 64))
        table.desk.submit(segment(0, ROOT))
        table.desk.submit(segment(1, (1, 0, 1), (2, 0, 1)))
        table.desk.submit(segment(0, ROOT, request=8))
        assert table.desk.waiting == 3
        await table.settle()
        assert [(each.request, each.seq) for each in table.out] == [(9, 0), (9, 1), (8, 0)]
        assert table.stage.passes == [[1], [2, 1]]
        assert table.desk.latest == (8, 0)
        table.worker.close()

    run(scenario)


def test_rows_that_died_are_not_computed_and_the_count_stays_true() -> None:
    async def scenario() -> None:
        table = Table()
        table.stage.trouble = slow(0.05)
        table.desk.open(Open(9, 1, 64))
        table.desk.submit(segment(0, ROOT))
        table.desk.submit(segment(1, (1, 0, 1), (2, 0, 1)))
        table.desk.submit(segment(2, (3, 1, 2)))
        table.desk.submit(segment(3, (4, 2, 2)))
        await until(lambda: table.out)
        table.desk.advance(Advance(9, (), 2))  # in time for what has not begun
        await table.settle()
        assert [each.seq for each in table.out] == [0, 1, 2, 3]
        assert [len(each.ids) for each in table.out] == [1, 1, 0, 1]
        table.worker.close()

    run(scenario)


def test_a_failed_pass_ends_its_requests_and_nothing_else() -> None:
    def fail() -> None:
        raise RuntimeError("no")

    async def scenario() -> None:
        table = Table()
        table.desk.open(Open(9, 1, 64))
        table.stage.trouble = fail
        table.desk.submit(segment(0, ROOT))
        table.desk.submit(segment(1, (1, 0, 1)))
        await table.settle()
        assert table.failures == [(9, 0, "RuntimeError('no')")]
        assert (table.desk.requests, table.desk.gave_up(9)) == ((), True)
        table.stage.trouble = lambda: None
        # What was on its way comes for nothing, until it is closed.
        table.desk.submit(segment(2, (2, 1, 2)))
        table.desk.advance(Advance(9, (0,), 1))
        with pytest.raises(RemoteError, match="opened twice"):
            table.desk.open(Open(9, 1, 64))
        table.desk.close(9)
        table.desk.open(Open(9, 1, 64))
        table.desk.submit(segment(0, ROOT))
        await table.settle()
        assert [each.seq for each in table.out] == [0]
        assert list(table.stage.caches) == [9]
        table.worker.close()

    run(scenario)


def test_rows_that_do_not_fit_end_their_request_alone() -> None:
    async def scenario() -> None:
        table = Table()
        table.stage.trouble = slow(0.02)
        for request in (8, 9):
            table.desk.open(Open(request, 1, 64))
            table.desk.submit(segment(0, ROOT, request=request))
        table.desk.submit(segment(1, (1, 0, 7)))
        table.desk.submit(segment(1, (1, 0, 1), request=8))
        await table.settle()
        assert table.failures == [(9, 1, "RemoteError('row 1 claims position 7 but stands at 1')")]
        assert [each.seq for each in table.out if each.request == 8] == [0, 1]
        table.worker.close()

    run(scenario)


def test_a_desk_is_free_again_when_its_answer_cannot_be_sent() -> None:
    async def scenario() -> None:
        table = Table()
        table.desk.open(Open(9, 1, 64))

        def refuse(message: Segment | Verdict) -> None:
            raise ValueError("too long")

        table.desk._out = refuse
        table.desk.submit(segment(0, ROOT))
        await table.settle()
        assert table.failures == [(9, 0, "ValueError('too long')")]
        table.desk._out = table.out.append
        table.desk.open(Open(8, 1, 64))
        table.desk.submit(segment(0, ROOT, request=8))
        await table.settle()
        assert [each.request for each in table.out] == [8]
        table.worker.close()

    run(scenario)


def test_a_slow_neighbour_holds_the_desk_up_and_no_longer() -> None:
    async def scenario() -> None:
        table = Table()
        free = asyncio.get_running_loop().create_future()
        table.slow = free
        table.desk.open(Open(9, 1, 64))
        table.desk.submit(segment(0, ROOT))
        await until(lambda: table.out)
        table.desk.submit(segment(1, (1, 0, 1)))
        await asyncio.sleep(0.02)
        assert (len(table.out), table.desk.waiting) == (1, 1)
        table.slow = None
        free.set_result(None)
        await until(lambda: len(table.out) == 2)
        table.worker.close()

    run(scenario)


def test_what_is_closed_leaves_nothing() -> None:
    async def scenario() -> None:
        table = Table()
        table.stage.trouble = slow(0.05)
        for request in (7, 8, 9):
            table.desk.open(Open(request, 1, 64))
            table.desk.submit(segment(0, ROOT, request=request))
        table.desk.give_up(8)
        assert sorted(table.desk.clear()) == [7, 8, 9]
        await table.settle()
        assert (table.out, table.failures, table.stage.caches) == ([], [], {})
        table.worker.close()

    run(scenario)


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "QUEUE", 3)

    async def scenario() -> None:
        table = Table()
        table.stage.trouble = slow(0.05)
        with pytest.raises(RemoteError, match="this model has a context of 512"):
            table.desk.open(Open(9, 1, 513))
        with pytest.raises(RemoteError, match="a segment of request 9, which is not open"):
            table.desk.submit(segment(0, ROOT))
        with pytest.raises(RemoteError, match="an Advance for request 9, which is not open"):
            table.desk.advance(Advance(9, (), 1))
        table.desk.open(Open(9, 1, 64))
        for seq in range(4):  # one is computed, three wait
            table.desk.submit(segment(seq, (seq, seq - 1, seq)))
        with pytest.raises(RemoteError, match="3 segments of 0 bytes wait: that is too much"):
            table.desk.submit(segment(4, (4, 3, 4)))
        await table.settle()
        monkeypatch.setattr(desks, "ERRANDS", 5)
        table.worker.submit(slow(0.2))

        def churn() -> None:
            for request in range(10, 20):
                table.desk.open(Open(request, 1, 64))
                table.desk.close(request)

        with pytest.raises(RemoteError, match="requests are opened"):
            churn()
        table.worker.close()

    run(scenario)
