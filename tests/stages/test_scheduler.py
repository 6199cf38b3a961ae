"""A scheduler with a fake stage: order, batches, and what is left when something fails."""

import asyncio
from collections.abc import Awaitable
from threading import Event

import msgspec
import pytest
from loopback import FakeStage, column, feature, run, slow, until, values

from gardener.errors import RemoteError
from gardener.protocol.messages import Advance, Open, Segment, Timing, Verdict
from gardener.runtime.trace import Trace
from gardener.runtime.worker import Worker
from gardener.stages import queue, scheduler
from gardener.stages.batching import SEPARATE, BatchingPolicy
from gardener.stages.scheduler import LESS, Scheduler


class Harness:
    """A scheduler of a stage, which is the first and the last by default, and what comes off it."""

    def __init__(
        self, number: int = 1, stages: int = 1, batching: BatchingPolicy = SEPARATE
    ) -> None:
        self.stage = FakeStage(number, stages)
        self.worker = Worker("stage")
        self.out: list[Segment | Verdict] = []
        self.failures: list[tuple[int, int, str]] = []
        self.slow: Awaitable[None] | None = None
        self.trace = Trace()
        self.scheduler = Scheduler(
            self.stage,
            self.worker,
            self.trace,
            self.out.append,
            lambda: self.slow,
            lambda request, seq, error: self.failures.append((request, seq, repr(error))),
            batching,
        )

    async def settle(self) -> None:
        """Until nothing waits here or at the worker."""
        await until(lambda: not self.scheduler.waiting and not self.scheduler._busy)
        await self.worker.run(lambda: None)


def segment(seq: int, *nodes: tuple[int, int, int], request: int = 9) -> Segment:
    """`nodes`: id, parent, position of each row."""
    ids, parents, positions = zip(*nodes, strict=True)
    return Segment(request, seq, ids, parents, positions, (1,) * len(ids), None, ())


ROOT = (0, -1, 0)


def test_segments_leave_in_the_order_they_came_and_share_passes() -> None:
    async def scenario() -> None:
        harness = Harness()
        harness.stage.trouble = slow(0.05)
        harness.scheduler.open(Open(9, 1, 64))
        harness.scheduler.open(Open(8, 1, 64))
        harness.scheduler.receive(segment(0, ROOT))
        harness.scheduler.receive(segment(1, (1, 0, 1), (2, 0, 1)))
        harness.scheduler.receive(segment(0, ROOT, request=8))
        assert harness.scheduler.waiting == 3
        await harness.settle()
        assert [(each.request, each.seq) for each in harness.out] == [(9, 0), (9, 1), (8, 0)]
        assert harness.stage.passes == [[1], [2, 1]]
        assert [each.times[0].rows for each in harness.out] == [1, 3, 3]  # of the whole pass
        assert harness.scheduler.latest == (8, 0)
        harness.worker.close()

    run(scenario)


def test_rows_that_died_are_not_computed_and_the_count_stays_true() -> None:
    async def scenario() -> None:
        harness = Harness()
        harness.stage.trouble = slow(0.05)
        harness.scheduler.open(Open(9, 1, 64))
        harness.scheduler.receive(segment(0, ROOT))
        harness.scheduler.receive(segment(1, (1, 0, 1), (2, 0, 1)))
        harness.scheduler.receive(segment(2, (3, 1, 2)))
        harness.scheduler.receive(segment(3, (4, 2, 2)))
        await until(lambda: harness.out)
        harness.scheduler.advance(Advance(9, (), 2))  # in time for what has not begun
        await harness.settle()
        assert [each.seq for each in harness.out] == [0, 1, 2, 3]
        assert [len(each.ids) for each in harness.out] == [1, 1, 0, 1]
        harness.worker.close()

    run(scenario)


def test_a_pass_that_was_stopped_says_nothing_of_its_rows() -> None:
    async def scenario() -> None:
        harness = Harness()
        harness.stage.run = lambda batch: None  # type: ignore[assignment,method-assign,return-value]
        harness.scheduler.open(Open(9, 1, 64))
        harness.scheduler.receive(segment(0, ROOT))
        await harness.settle()
        assert [each.times[0].rows for each in harness.out] == [0]
        harness.worker.close()

    run(scenario)


def test_a_failed_pass_ends_its_requests_and_nothing_else() -> None:
    def fail() -> None:
        raise RuntimeError("no")

    async def scenario() -> None:
        harness = Harness()
        harness.scheduler.open(Open(9, 1, 64))
        harness.stage.trouble = fail
        harness.scheduler.receive(segment(0, ROOT))
        harness.scheduler.receive(segment(1, (1, 0, 1)))
        await harness.settle()
        assert harness.failures == [(9, 0, "RuntimeError('no')")]
        assert (harness.scheduler.requests, harness.scheduler.gave_up(9)) == ((), True)
        harness.stage.trouble = lambda: None
        # What was on its way comes for nothing, until it is closed.
        harness.scheduler.receive(segment(2, (2, 1, 2)))
        harness.scheduler.advance(Advance(9, (0,), 1))
        with pytest.raises(RemoteError, match="opened twice"):
            harness.scheduler.open(Open(9, 1, 64))
        harness.scheduler.close(9)
        harness.scheduler.open(Open(9, 1, 64))
        harness.scheduler.receive(segment(0, ROOT))
        await harness.settle()
        assert [each.seq for each in harness.out] == [0]
        assert list(harness.stage.caches) == [9]
        harness.worker.close()

    run(scenario)


def test_a_failed_pass_is_told_for_every_request_in_it() -> None:
    """Whoever is not told waits for its verdict for long."""

    async def scenario() -> None:
        harness, gate = Harness(), Event()

        def fail_the_second_pass() -> None:
            assert_set(gate)
            if harness.stage.passes:
                raise RuntimeError("no")

        harness.stage.trouble = fail_the_second_pass
        for request in (7, 8, 9):
            harness.scheduler.open(Open(request, 1, 64))
            harness.scheduler.receive(segment(0, ROOT, request=request))
        gate.set()
        await harness.settle()
        assert [each.request for each in harness.out] == [7]
        assert [failure[:2] for failure in harness.failures] == [(8, 0), (9, 0)]
        harness.worker.close()

    run(scenario)


def test_a_pass_of_a_closed_request_is_not_taken_for_one_of_its_number() -> None:
    """Closed and opened again while the pass runs: nothing of the old one comes off."""

    async def scenario() -> None:
        harness, gate = Harness(), Event()
        harness.stage.trouble = lambda: assert_set(gate)
        harness.scheduler.open(Open(9, 1, 64))
        harness.scheduler.receive(rows(3, 0))
        harness.scheduler.close(9)
        harness.scheduler.open(Open(9, 1, 64))
        harness.scheduler.receive(segment(0, ROOT))
        gate.set()
        await harness.settle()
        assert [each.seq for each in harness.out] == [0]
        assert (harness.stage.passes, harness.failures) == ([[1], [1]], [])
        assert harness.stage.caches == {9: {0: 1}}
        harness.worker.close()

    run(scenario)


def test_a_failed_pass_of_a_closed_request_does_not_end_the_next_of_its_number() -> None:
    async def scenario() -> None:
        harness, gate = Harness(), Event()

        def fail_the_first_pass() -> None:
            assert_set(gate)
            harness.stage.trouble = lambda: None
            raise RuntimeError("no")

        harness.stage.trouble = fail_the_first_pass
        harness.scheduler.open(Open(9, 1, 64))
        harness.scheduler.receive(segment(3, ROOT))
        harness.scheduler.close(9)
        harness.scheduler.open(Open(9, 1, 64))
        harness.scheduler.receive(segment(0, ROOT))
        gate.set()
        await harness.settle()
        assert ([each.seq for each in harness.out], harness.failures) == ([0], [])
        assert harness.scheduler.requests == (9,)
        harness.worker.close()

    run(scenario)


def test_a_request_that_cannot_be_opened_is_told() -> None:
    def fail() -> None:
        raise MemoryError("no")

    async def scenario() -> None:
        harness = Harness()
        harness.stage.open_trouble = fail
        harness.scheduler.open(Open(9, 1, 64))
        await until(lambda: harness.failures)
        assert harness.failures == [(9, 0, f"Refused('MemoryError: no ({LESS})')")]
        assert harness.scheduler.gave_up(9)
        harness.worker.close()

    run(scenario)


def test_what_stages_before_it_said_of_their_time_is_kept() -> None:
    async def scenario() -> None:
        earlier = Timing(1, 2, 3)
        for number in (1, 2):
            harness = Harness(number, 2)
            harness.scheduler.open(Open(9, 1, 64, (0,)))
            sent = rows(0, 0) if number == 1 else rows(0, 0, taps=(0,))
            harness.scheduler.receive(
                msgspec.structs.replace(sent, times=(earlier,) * (number - 1))
            )
            # Nothing of this one is computed here, and yet it has passed.
            nothing = Segment(9, 1, (), (), (), (), None, (earlier,) * (number - 1))
            harness.scheduler.receive(nothing)
            await harness.settle()
            assert [len(each.times) for each in harness.out] == [number, number]
            assert all(each.times[:-1] == (earlier,) * (number - 1) for each in harness.out)
            harness.worker.close()

    run(scenario)


def test_rows_that_do_not_fit_end_their_request_alone() -> None:
    async def scenario() -> None:
        harness = Harness()
        harness.stage.trouble = slow(0.02)
        for request in (8, 9):
            harness.scheduler.open(Open(request, 1, 64))
            harness.scheduler.receive(segment(0, ROOT, request=request))
        harness.scheduler.receive(segment(1, (1, 0, 7)))
        harness.scheduler.receive(segment(1, (1, 0, 1), request=8))
        await harness.settle()
        assert harness.failures == [
            (9, 1, "RemoteError('row 1 claims position 7 but stands at 1')")
        ]
        assert [each.seq for each in harness.out if each.request == 8] == [0, 1]
        harness.worker.close()

    run(scenario)


def test_a_scheduler_is_free_again_when_its_answer_cannot_be_sent() -> None:
    async def scenario() -> None:
        harness = Harness()
        harness.scheduler.open(Open(9, 1, 64))

        def refuse(message: Segment | Verdict) -> None:
            raise ValueError("too long")

        harness.scheduler._out = refuse
        harness.scheduler.receive(segment(0, ROOT))
        await harness.settle()
        assert harness.failures == [(9, 0, "ValueError('too long')")]
        harness.scheduler._out = harness.out.append
        harness.scheduler.open(Open(8, 1, 64))
        harness.scheduler.receive(segment(0, ROOT, request=8))
        await harness.settle()
        assert [each.request for each in harness.out] == [8]
        harness.worker.close()

    run(scenario)


def test_a_slow_neighbour_holds_the_scheduler_up_and_no_longer() -> None:
    async def scenario() -> None:
        harness = Harness()
        free = asyncio.get_running_loop().create_future()
        harness.slow = free
        harness.scheduler.open(Open(9, 1, 64))
        harness.scheduler.receive(segment(0, ROOT))
        await until(lambda: harness.out)
        harness.scheduler.receive(segment(1, (1, 0, 1)))
        await asyncio.sleep(0.02)
        assert (len(harness.out), harness.scheduler.waiting) == (1, 1)
        harness.slow = None
        free.set_result(None)
        await until(lambda: len(harness.out) == 2)
        harness.worker.close()

    run(scenario)


def test_what_is_closed_leaves_nothing() -> None:
    async def scenario() -> None:
        harness = Harness()
        harness.stage.trouble = slow(0.05)
        for request in (7, 8, 9):
            harness.scheduler.open(Open(request, 1, 64))
            harness.scheduler.receive(segment(0, ROOT, request=request))
        harness.scheduler.give_up(8)
        assert sorted(harness.scheduler.clear()) == [7, 8, 9]
        await harness.settle()
        assert (harness.out, harness.failures, harness.stage.caches) == ([], [], {})
        harness.worker.close()

    run(scenario)


def test_bytes_that_wait_and_requests_that_were_given_up_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "MOST_BYTES", 2 * (4 + 2 * queue.ROW_BYTES))

    async def scenario() -> None:
        harness, gate = Harness(2, 2), Event()
        harness.stage.trouble = lambda: assert_set(gate)
        harness.scheduler.open(Open(9, 1, 64))
        for node in range(3):  # one is computed, two of 4 bytes each wait
            harness.scheduler.receive(rows(node, node, taps=()))
        harness.scheduler.receive(rows(3, 3, taps=()))
        ((request, seq, why),) = harness.failures
        assert (request, seq) == (9, 3)
        assert "2 segments of 0.000984 MiB wait here, which is the most" in why
        gate.set()
        await harness.settle()
        for request in (8, 7):
            harness.scheduler.open(Open(request, 1, 64))
            harness.scheduler.give_up(request)
        monkeypatch.setattr(scheduler, "MOST_UNCLOSED", 3)
        with pytest.raises(RemoteError, match="more than 3 requests were opened and not closed"):
            harness.scheduler.open(Open(6, 1, 64))
        harness.scheduler.close(8)
        harness.scheduler.open(Open(6, 1, 64))
        harness.worker.close()

    run(scenario)


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST_SEGMENTS", 3)

    async def scenario() -> None:
        harness = Harness()
        harness.stage.trouble = slow(0.05)
        with pytest.raises(RemoteError, match="a context of 64 with a prompt of 64"):
            harness.scheduler.open(Open(9, 64, 64))
        with pytest.raises(RemoteError, match="a segment of request 9, which is not open"):
            harness.scheduler.receive(segment(0, ROOT))
        with pytest.raises(RemoteError, match="an Advance for request 9, which is not open"):
            harness.scheduler.advance(Advance(9, (), 1))
        harness.scheduler.open(Open(9, 1, 64))
        for seq in range(4):  # one is computed, three wait
            harness.scheduler.receive(segment(seq, (seq, seq - 1, seq)))
        with pytest.raises(
            RemoteError, match="3 segments of request 9 wait: that is more than any"
        ):
            harness.scheduler.receive(segment(4, (4, 3, 4)))
        await harness.settle()
        monkeypatch.setattr(scheduler, "MOST_ERRANDS", 5)
        harness.worker.submit(slow(0.2))

        for request in range(10, 20):
            harness.scheduler.open(Open(request, 1, 64))
            harness.scheduler.close(request)
        refused = {request for request, _, why in harness.failures if "opened faster" in why}
        assert 19 in refused
        assert 10 not in refused
        harness.worker.close()

    run(scenario)


# --- features ------------------------------------------------------------------------------------


PLACES = {0: (-1, 0), 1: (0, 1), 2: (1, 2), 3: (2, 3), 4: (2, 3), 5: (3, 4), 6: (4, 4), 7: (5, 5)}
"""Parent and position of some nodes; the token of each is its id and one."""


def of(tap: int, *nodes: int) -> list[float]:
    """What a tap gives for these nodes."""
    return [feature(tap, PLACES[node][1], node + 1) for node in nodes]


def rows(seq: int, *nodes: int, taps: tuple[int, ...] | None = None) -> Segment:
    """As the holder sends them; or with `taps`, as a stage in the middle gets them."""
    whole = segment(seq, *((node, *PLACES[node]) for node in nodes))
    tokens = tuple(node + 1 for node in nodes)
    if taps is None:
        return msgspec.structs.replace(whole, tokens=tokens)
    features = tuple(column(of(tap, *nodes)) for tap in taps)
    return msgspec.structs.replace(whole, tokens=tokens, hidden=column(tokens), features=features)


def features(message: Segment | Verdict) -> list[list[float]]:
    return [values(tensor) for tensor in message.features]


def test_the_features_of_a_verdict_are_those_of_the_prompt_then_those_of_its_rows() -> None:
    async def scenario() -> None:
        harness = Harness()
        harness.scheduler.open(Open(9, 3, 64, (0, 1)))
        harness.scheduler.receive(rows(0, 0))
        harness.scheduler.receive(rows(1, 1, 2, 3, 4))
        harness.scheduler.receive(rows(2, 5, 6))
        await harness.settle()
        assert [each.ids for each in harness.out] == [(), (2, 3, 4), (5, 6)]
        assert [features(each) for each in harness.out] == [
            [of(0, 0), of(1, 0)],
            [of(0, 1, 2, 3, 4), of(1, 1, 2, 3, 4)],
            [of(0, 5, 6), of(1, 5, 6)],
        ]
        harness.worker.close()

    run(scenario)


def test_rows_that_die_while_they_are_computed_have_no_features_in_the_verdict() -> None:
    async def scenario() -> None:
        harness, gate = Harness(), Event()
        harness.stage.trouble = lambda: assert_set(gate)
        harness.scheduler.open(Open(9, 3, 64, (1,)))
        harness.scheduler.receive(rows(0, 0, 1, 2, 3, 4, 5, 6))
        harness.scheduler.receive(rows(1, 7))
        harness.scheduler.advance(Advance(9, (2,), 4))
        gate.set()
        await harness.settle()
        assert harness.stage.passes == [[7]]
        verdict, empty = harness.out
        assert (verdict.ids, features(verdict)) == ((2, 4, 6), [of(1, 0, 1, 2, 4, 6)])
        assert (empty.ids, empty.features) == ((), ())
        harness.worker.close()

    run(scenario)


def assert_set(gate: Event) -> None:
    """A stage's trouble: it waits for the gate."""
    assert gate.wait(20)


def test_rows_that_die_at_a_stage_in_the_middle_leave_all_features() -> None:
    """While they are computed, and while they wait."""

    async def scenario() -> None:
        harness, gate = Harness(2, 3), Event()
        harness.stage.trouble = lambda: assert_set(gate)
        harness.scheduler.open(Open(9, 3, 64, (0, 1, 2, 3)))
        harness.scheduler.receive(rows(0, 0, 1, 2, 3, 4, taps=(0,)))
        harness.scheduler.receive(rows(1, 5, 6, taps=(0,)))
        harness.scheduler.receive(rows(2, 7, taps=(0,)))
        harness.scheduler.advance(Advance(9, (2,), 4))
        gate.set()
        await harness.settle()
        assert harness.stage.passes == [[5], [1]]
        assert [each.ids for each in harness.out] == [(0, 1, 2, 4), (6,), ()]
        assert [features(each) for each in harness.out] == [
            [of(0, 0, 1, 2, 4), of(1, 0, 1, 2, 4)],
            [of(0, 6), of(1, 6)],
            [],
        ]
        harness.worker.close()

    run(scenario)


def test_a_segment_brings_the_features_of_the_stages_before_and_no_other() -> None:
    async def scenario() -> None:
        first, last = Harness(1, 2), Harness(2, 2)
        with pytest.raises(RemoteError, match="tap 3 of a model with 2 layers"):
            last.scheduler.open(Open(9, 1, 64, (0, 3)))
        for harness in (first, last):
            harness.scheduler.open(Open(9, 1, 64, (0, 1, 2)))
            harness.scheduler.open(Open(8, 1, 64))
        with pytest.raises(RemoteError, match="segment 0 brings 0 features, due are 1"):
            last.scheduler.receive(rows(0, 0, taps=()))
        with pytest.raises(RemoteError, match="segment 0 brings 2 features, due are 1"):
            last.scheduler.receive(rows(0, 0, taps=(0, 1)))
        with pytest.raises(RemoteError, match="segment 0 brings 1 features, due are 0"):
            last.scheduler.receive(msgspec.structs.replace(rows(0, 0, taps=(0,)), request=8))
        with pytest.raises(RemoteError, match="segment 1 brings 1 features, due are 0"):
            last.scheduler.receive(Segment(9, 1, (), (), (), (), None, (), (column([]),)))
        with pytest.raises(RemoteError, match="segment 0 brings 1 features, due are 0"):
            first.scheduler.receive(msgspec.structs.replace(rows(0, 0), features=(column([1.0]),)))
        assert (first.scheduler.waiting, last.scheduler.waiting) == (0, 0)
        first.scheduler.receive(rows(0, 0))
        last.scheduler.receive(rows(0, 0, taps=(0,)))
        last.scheduler.receive(Segment(9, 1, (), (), (), (), None, ()))
        for harness in (first, last):
            await harness.settle()
        assert [features(each) for each in first.out] == [[of(0, 0)]]
        assert [features(each) for each in last.out] == [[of(0, 0), of(1, 0), of(2, 0)], []]
        for harness in (first, last):
            harness.worker.close()

    run(scenario)
