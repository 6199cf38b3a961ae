"""What goes wrong with one request at a stage ends that request alone, though others share its
pass."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import tiny
import torch
from loopback import FakeStage, run, until
from real_stages import AtOnce

from gardener.decoding.curves import Curve
from gardener.errors import StageFailed
from gardener.model.head import Head
from gardener.model.kv_slots import SlotTable
from gardener.model.sampler import Picking, Sampler
from gardener.protocol.messages import Broken, Open, Segment, Verdict
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.runtime.trace import Trace
from gardener.runtime.worker import AnyWorker, Worker
from gardener.stages import queue
from gardener.stages.batching import BatchingPolicy
from gardener.stages.computes import Computes
from gardener.stages.forward import NO_PICK, ComputedSegment, PlacedSegment
from gardener.stages.load import load_stage
from gardener.stages.picks import Pick
from gardener.stages.scheduler import LESS, Refused, Scheduler

PROMPT = (3, 1, 4)


class Harness:
    """A scheduler of the only stage, and what comes off it."""

    def __init__(self, stage: Computes, worker: AnyWorker) -> None:
        self.worker = worker
        self.out: list[Verdict] = []
        self.failures: list[tuple[int, int, str]] = []
        self.refused: list[int] = []
        self.unsent: tuple[int, ...] = ()  # requests whose answers cannot be sent, but empty ones
        self.scheduler = Scheduler(stage, worker, Trace(), self._send, lambda: None, self._fail)

    def _send(self, message: Segment | Verdict) -> None:
        assert isinstance(message, Verdict)
        if message.request in self.unsent and message.ids:
            raise ValueError("too long")
        self.out.append(message)

    def _fail(self, request: int, seq: int, error: BaseException) -> None:
        self.failures.append((request, seq, str(error)))
        if isinstance(error, Refused):
            self.refused.append(request)

    def bundle(self, *requests: int, prompt: Sequence[int] = PROMPT, last: int = 0) -> None:
        """The prompts of these requests, as one that belongs together. That of request 9 ends with
        `last`."""
        for at, request in enumerate(requests, 1):
            tokens = (*prompt[:-1], last if request == 9 else prompt[-1])
            ids = tuple(range(len(tokens)))
            parents = tuple(i - 1 for i in ids)
            more = at < len(requests)
            self.scheduler.receive(
                Segment(request, 0, ids, parents, ids, tokens, None, (), more=more)
            )


@pytest.mark.parametrize("order", [(7, 8, 9), (8, 7, 9), (8, 9, 7)])
def test_a_request_that_cannot_be_opened_takes_nobody_along(order: tuple[int, ...]) -> None:
    """Its segment is in the pass already when word of the opening comes."""

    async def scenario() -> None:
        stage, gate = FakeStage(), Event()
        harness = Harness(stage, Worker("stage"))
        openings = iter(order)

        def fail_for_7() -> None:
            assert gate.wait(20)
            if next(openings) == 7:
                raise MemoryError("no")

        stage.open_trouble = fail_for_7
        for request in order:
            harness.scheduler.open(Open(request, 3, 64))
        harness.bundle(*order)
        gate.set()
        await until(lambda: len(harness.out) == 2)
        others = [request for request in order if request != 7]
        assert [(each.request, len(each.ids)) for each in harness.out] == [(o, 1) for o in others]
        assert [each.more for each in harness.out] == [True, False]
        why = f"MemoryError: no ({LESS})"
        assert (harness.failures, harness.refused) == ([(7, 0, why)], [7])
        # Closed, its number is as good as any other.
        harness.scheduler.close(7)
        stage.open_trouble = lambda: None
        harness.scheduler.open(Open(7, 3, 64))
        harness.bundle(7)
        await until(lambda: len(harness.out) == 3)
        assert len(harness.out[2].ids) == 1
        harness.worker.close()

    run(scenario)


def test_nothing_is_kept_of_a_request_that_could_not_be_opened(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        stage, gate = FakeStage(), Event()
        harness = Harness(stage, Worker("stage"))

        def fail() -> None:
            assert gate.wait(20)
            raise MemoryError("no")

        stage.open_trouble = fail
        harness.scheduler.open(Open(7, 3, 64))
        harness.bundle(7)
        harness.scheduler.close(7, keep=True)
        gate.set()
        await harness.worker.run(lambda: None)
        harness.scheduler.close(7)
        await harness.worker.run(lambda: None)
        assert (harness.out, harness.failures, stage.caches) == ([], [], {})
        harness.worker.close()

    run(scenario)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("unsent", [(7,), (8,), (9,), (8, 9), (7, 8, 9)])
def test_an_answer_that_cannot_be_sent_holds_up_no_other(unsent: tuple[int, ...]) -> None:
    """Whoever gets the others is told that nothing more follows."""

    async def scenario() -> None:
        harness = Harness(FakeStage(), AtOnce())
        for request in (7, 8, 9):
            harness.scheduler.open(Open(request, 3, 64))
        harness.unsent = unsent
        harness.bundle(7, 8, 9)
        assert harness.failures == [(request, 0, "too long") for request in unsent]
        full = [each.request for each in harness.out if each.ids]
        assert full == [request for request in (7, 8, 9) if request not in unsent]
        assert not harness.out[-1].more

    run(scenario)


# --- logits that are not numbers -----------------------------------------------------------------

HOW = {
    "greedy": GREEDY,
    "noise": Sampling(1.0, seed=3),
    "shortened": Sampling(0.8, 0.9, 20, 0.01, seed=3),
    "penalty": Sampling(repetition_penalty=1.3),
    "early": Sampling(min_tokens=4, eos=(2,)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    tiny.make("llama", made)
    return made


@pytest.mark.parametrize("best", [None, 0, 2])
@pytest.mark.parametrize("how", HOW)
def test_rows_that_are_no_numbers_are_named_and_spoil_nothing_else(
    how: str, best: int | None, folder: Path
) -> None:
    stage: Any = load_stage(folder)
    table = stage._intake._embedding._table
    table._weights = table._weights.clone()
    table._weights[60] = math.nan  # and so is all that comes of this token
    texts: list[Any] = []
    for last in (5, 60):

        async def scenario(last: int = last) -> None:
            harness = Harness(stage, AtOnce())
            for request in (7, 9, 8):
                asked = Open(request, 3, 64, sampling=HOW[how], logprobs=best)
                harness.scheduler.open(asked)
            harness.bundle(7, 9, 8, last=last)
            told = [(each.request, each.picks, each.logprobs) for each in harness.out]
            texts.append([each for each in told if each[0] != 9])
            assert len(told) == 3
            assert harness.failures == []
            broken = {each.request: each.broken for each in harness.out if each.broken}
            assert broken == ({} if last == 5 else {9: (Broken(2, -1),)})
            assert [each.more for each in harness.out][-2:] == [True, False]
            harness.scheduler.clear()

        run(scenario)
    assert texts[0] == texts[1]


class Overflows(FakeStage):
    """Has no pick after token 6."""

    def _run(self, job: PlacedSegment, cache: dict[int, int]) -> ComputedSegment:
        done = super()._run(job, cache)
        return replace(done, picks=(NO_PICK,), broken={0: 0}) if 6 in job.tokens else done


def test_a_row_that_is_no_number_has_no_pick_and_the_others_theirs() -> None:

    async def scenario() -> None:
        harness = Harness(Overflows(), AtOnce())
        harness.scheduler._batching = BatchingPolicy(Curve(((1, 1.0), (512, 1.0))))
        for request in (8, 9):
            harness.scheduler.open(Open(request, 1, 64))
        for request, seq, token in ((9, 0, 5), (9, 1, 6), (8, 0, 5)):
            row = (seq,), (seq - 1,), (seq,), (token,)
            more = request == 9
            harness.scheduler.receive(Segment(request, seq, *row, None, (), more=more))
        assert harness.failures == []
        assert [(each.request, each.ids) for each in harness.out] == [(9, (0,)), (9, ()), (8, (0,))]
        assert [each.broken for each in harness.out] == [(), (Broken(1, 0),), ()]

    run(scenario)


class Given(Head):
    """A head for which the hidden states are the logits."""

    def __init__(self) -> None:
        self.nbytes = 0

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def project(self, normed: torch.Tensor) -> torch.Tensor:
        return normed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("best", [None, 2])
@pytest.mark.parametrize("how", HOW)
def test_there_is_no_pick_where_a_logit_is_no_number(
    how: str, best: int | None, dtype: torch.dtype
) -> None:
    nan, inf = math.nan, math.inf
    logits = torch.tensor(
        [
            [0.0, 9.0, -1.0, -inf],
            [0.0, nan, -1.0, -2.0],
            [nan, nan, nan, nan],
            [0.0, 1.0, -1.0, inf],
            [-inf, -inf, -inf, -inf],
        ],
        dtype=dtype,
    )
    pick = Pick(Given(), 4)
    placement = SlotTable(1, 50).place(range(5), range(-1, 4), range(5))
    picking = None
    if how != "greedy" or best is not None:
        picking = Picking(Sampler(HOW[how], 1, best), range(1, 6), (1,), 1, [()] * 5)
    (done,) = pick(logits, [PlacedSegment(1, placement, pick_rows=range(5), picking=picking)])
    assert done.picks == (1, NO_PICK, NO_PICK, NO_PICK, NO_PICK)


def test_a_token_without_a_number_that_may_not_be_picked_is_noticed_in_the_sum() -> None:
    for number in (math.nan, math.inf):
        logits = torch.tensor([[0.0, 1.0, number, -2.0]])
        placement = SlotTable(1, 50).place([0], [-1], [0])
        picking = Picking(Sampler(HOW["early"], 1, 1), [1])
        placed = PlacedSegment(1, placement, pick_rows=[0], picking=picking)
        (done,) = Pick(Given(), 4)(logits, [placed])
        assert done.picks == (NO_PICK,)


# --- too much that waits -------------------------------------------------------------------------


def test_many_requests_may_wait_together_and_too_many_bytes_end_the_one_that_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "MOST_SEGMENTS", 1)
    monkeypatch.setattr(queue, "MOST_BYTES", 3 * 4 * queue.ROW_BYTES)

    async def scenario() -> None:
        stage, gate = FakeStage(), Event()
        harness = Harness(stage, Worker("stage"))
        stage.trouble = lambda: wait(gate)
        for request in range(1, 6):
            harness.scheduler.open(Open(request, 3, 64))
            harness.bundle(request)  # the first is computed, three wait
        ((request, seq, why),) = harness.failures
        assert (request, seq) == (5, 0)
        assert why.startswith("3 segments of 0.00293 MiB wait here, which is the most: ")
        gate.set()
        await until(lambda: len(harness.out) == 4)
        assert [each.request for each in harness.out] == [1, 2, 3, 4]
        harness.worker.close()

    run(scenario)


def test_a_bundle_is_not_held_up_by_its_last_segment_for_which_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "MOST_BYTES", 4 * queue.ROW_BYTES)

    async def scenario() -> None:
        harness = Harness(FakeStage(), AtOnce())
        for request in (7, 8):
            harness.scheduler.open(Open(request, 3, 64))
        harness.bundle(7, 8)
        assert [each.request for each in harness.out] == [7]
        assert [request for request, _, _ in harness.failures] == [8]

    run(scenario)


def wait(gate: Event) -> None:
    assert gate.wait(20)


# --- what is refused -----------------------------------------------------------------------------

REFUSALS: dict[str, Callable[[Scheduler], None]] = {
    "0 requests run and 0 are kept, which is the most": lambda it: it.open(Open(1, 1, 8)),
    "the request begins with 2 tokens of request 5, and 0 are here": lambda it: it.open(
        Open(1, 3, 8, prefix=(5, 2))
    ),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_what_is_refused_is_told_as_such(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "most" in why:
        monkeypatch.setattr("gardener.stages.room.MOST_REQUESTS", 0)
    harness = Harness(FakeStage(), AtOnce())
    REFUSALS[why](harness.scheduler)
    assert (harness.failures, harness.refused) == ([(1, 0, why)], [1])


def test_what_a_stage_refuses_never_gets_to_its_worker(folder: Path) -> None:
    stage: Any = load_stage(folder)
    harness = Harness(stage, AtOnce())
    harness.scheduler.open(Open(1, 1, 8, sampling=Sampling(logit_bias=((61, 1.0),))))
    assert harness.refused == [1]
    assert stage._caches == {}
    with pytest.raises(StageFailed, match="logit_bias names token 61"):
        stage.check_open(Open(1, 1, 8, sampling=Sampling(logit_bias=((61, 1.0),))))
