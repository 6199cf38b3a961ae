"""Picks at the last stage: those of every row's own text, whoever else is in the pass."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sampled
import tiny
import torch
from loopback import run, until

from gardener.errors import LocalError, StageFailed
from gardener.model.checkpoint.slices import Slice
from gardener.protocol.logprobs import TokenLogprobs, brought
from gardener.protocol.messages import Advance, Open, Segment, Verdict
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.runtime.trace import Trace
from gardener.runtime.worker import Worker
from gardener.stages.executor import Executor
from gardener.stages.forward import ComputedSegment, PlacedSegment
from gardener.stages.load import load_stage
from gardener.stages.request import Request
from gardener.stages.scheduler import Refused, Scheduler
from gardener.stages.segments import verdict_of

PROMPT = [3, 1, 4, 1, 5]

HOW = {
    "greedy": GREEDY,
    "noise": Sampling(1.0, seed=3),
    "repetition": Sampling(repetition_penalty=1.5),
    "ends": Sampling(0.7, seed=4, min_tokens=2, eos=(0, 7, 30)),
    "all": Sampling(
        0.9, 0.9, 30, 0.001, 1.2, 0.3, 0.2, ((5, 1.0),), 8, min_tokens=2, eos=(0, 7, 30)
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return tiny.make("llama", folder)


class Asked:
    """A request at a stage that has the whole model."""

    def __init__(self, stage: Executor, number: int, how: Sampling, best: int | None) -> None:
        message = Open(number, len(PROMPT), 64, sampling=how, logprobs=best)
        self.number, self.how, self.request = number, how, Request(message)
        stage.open(message)
        self.texts: dict[int, list[int]] = {-1: []}

    def place(self, *rows: tuple[int, int, int]) -> PlacedSegment:
        """`rows`: id, parent and token of each."""
        ids, parents, tokens = zip(*rows, strict=True)
        for row, parent, token in rows:
            self.texts[row] = [*self.texts[parent], token]
        positions = tuple(len(self.texts[row]) - 1 for row in ids)
        return self.request.place(
            Segment(self.number, 0, ids, parents, positions, tokens, None, ())
        )

    def prompt(self) -> PlacedSegment:
        return self.place(*((row, row - 1, token) for row, token in enumerate(PROMPT)))

    def expected(self, model: Any, *rows: int) -> tuple[int, ...]:
        """What the reference picks after the whole text of each row."""
        return tuple(
            sampled.pick(
                tiny.logits(model, self.texts[row])[-1].tolist(),
                self.how,
                self.texts[row],
                len(PROMPT),
            )
            for row in rows
        )


def computed(stage: Executor, *batch: PlacedSegment) -> list[ComputedSegment]:
    done = stage.run(batch)
    assert done is not None
    return done


@pytest.mark.parametrize("name", HOW)
def test_every_row_of_a_tree_is_picked_for_after_its_own_text(
    name: str, model: Any, folder: Path
) -> None:
    stage = load_stage(folder)
    asked = Asked(stage, 9, HOW[name], None)
    root = len(PROMPT) - 1
    (prompt,) = computed(stage, asked.prompt())
    assert prompt.picks == asked.expected(model, root)
    tree = asked.place((5, root, 8), (6, root, 1), (7, 5, 1), (8, 6, 1), (9, 7, 60))
    assert computed(stage, tree)[0].picks == asked.expected(model, 5, 6, 7, 8, 9)
    asked.request.advance(Advance(9, (root, 5), 7))
    more = asked.place((10, 9, 8), (11, 7, 8), (12, 11, 8), (13, 12, 8))
    assert computed(stage, more)[0].picks == asked.expected(model, 10, 11, 12, 13)
    assert asked.request.prefix(7) == [*PROMPT, 8, 1]


def test_requests_that_pick_in_other_ways_share_a_pass(model: Any, folder: Path) -> None:
    """Each as alone, in whatever order; some of them want features or log probabilities."""
    stage = load_stage(folder)
    root = len(PROMPT) - 1
    for order in (list(HOW), list(HOW)[::-1], ["all", "greedy", "greedy", "all"]):
        them = [
            Asked(stage, number, HOW[name], [None, 3][number % 2])
            for number, name in enumerate(order)
        ]
        computed(stage, *(each.prompt() for each in them))
        trees = [each.place((5, root, 8), (6, root, 1), (7, 6, 1)) for each in them]
        done = computed(stage, *trees)
        for number, (each, result) in enumerate(zip(them, done, strict=True)):
            assert result.picks == each.expected(model, 5, 6, 7)
            assert len(result.logprobs) == (3 if number % 2 else 0)


def test_segments_of_one_request_in_one_pass(model: Any, folder: Path) -> None:
    stage = load_stage(folder)
    asked, root = Asked(stage, 9, HOW["all"], None), len(PROMPT) - 1
    batch = [asked.prompt(), asked.place((5, root, 8), (6, 5, 8)), asked.place((7, 6, 8))]
    done = computed(stage, *batch)
    assert [each.picks for each in done] == [
        asked.expected(model, root),
        asked.expected(model, 5, 6),
        asked.expected(model, 7),
    ]


def test_log_probabilities_are_what_transformers_says(model: Any, folder: Path) -> None:
    stage = load_stage(folder)
    asked = Asked(stage, 9, HOW["all"], 2)
    (done,) = computed(stage, asked.prompt())
    expected = torch.log_softmax(tiny.logits(model, PROMPT)[-1], -1)
    (told,) = done.logprobs
    assert told.pick == pytest.approx(float(expected[done.picks[0]]), abs=1e-4)
    best = expected.topk(2)
    assert [token for token, _ in told.best] == best.indices.tolist()
    assert [log for _, log in told.best] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_verdict_tells_only_of_rows_that_live() -> None:
    segment = Segment(9, 4, (5, 6, 7), (4, 5, 5), (5, 6, 6), (1, 2, 3), None, ())
    told = [TokenLogprobs(-row / 2, ((row, -0.25),)) for row in range(3)]
    verdict = verdict_of(segment, [0, 1, 2], [8, 9, 8], [0, 2], (), (), told)
    assert (verdict.ids, verdict.picks) == ((5, 7), (8, 8))
    assert brought(verdict, 1) == (told[0], told[2])
    none = verdict_of(segment, [0, 1, 2], [8, 9, 8], [], (), (), told)
    assert (none.logprobs, none.likeliest) == (None, b"")
    assert brought(none, 1) == ()


# --- what cannot be picked -----------------------------------------------------------------------

WRONG = {
    "logit_bias names token 61; this model has the tokens 0 to 60": Sampling(
        logit_bias=((61, 1.0),)
    ),
    "eos names token 99": Sampling(min_tokens=2, eos=(99, 3)),
}


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("why", WRONG)
def test_tokens_that_the_model_does_not_have_end_the_request_alone(why: str, folder: Path) -> None:
    async def scenario() -> None:
        out: list[Segment | Verdict] = []
        failures: list[tuple[int, int, BaseException]] = []
        worker = Worker("stage")
        scheduler = Scheduler(
            load_stage(folder, Slice(0, 4, 4)),
            worker,
            Trace(),
            out.append,
            lambda: None,
            lambda *failure: failures.append(failure),
        )
        scheduler.open(Open(9, 1, 32, sampling=WRONG[why]))
        scheduler.open(Open(8, 1, 32, sampling=HOW["all"], logprobs=1))
        await until(lambda: failures)
        ((request, _, error),) = failures
        assert request == 9
        assert isinstance(error, Refused)
        assert why in str(error)
        scheduler.receive(Segment(8, 0, (0,), (-1,), (0,), (5,), None, ()))
        await until(lambda: out)
        (verdict,) = out
        assert isinstance(verdict, Verdict)
        assert len(brought(verdict, 1)) == 1
        scheduler.clear()
        worker.close()
        await asyncio.sleep(0)

    run(scenario)


@pytest.mark.usefixtures("model")
def test_more_log_probabilities_than_tokens_are_refused(tmp_path: Path) -> None:
    tiny.make("llama", tmp_path, vocab_size=7)
    with pytest.raises(StageFailed, match="logprobs is 8; this model has 7 tokens"):
        load_stage(tmp_path).check_open(Open(1, 1, 8, logprobs=8))


def test_a_request_that_has_ended_has_no_text() -> None:
    request = Request(Open(1, 2, 8))
    request.place(Segment(1, 0, (0, 1), (-1, 0), (0, 1), (5, 6), None, ()))
    request.end()
    with pytest.raises(LocalError, match="0 are certain"):
        request.prefix(1)


def test_a_request_says_how_to_pick_only_where_there_is_a_choice() -> None:
    def picking(rows: Sequence[int], **how: Any) -> Any:
        request = Request(Open(1, 2, 8, **how))
        parents, tokens = [row - 1 for row in rows], [5] * len(rows)
        segment = Segment(1, 0, tuple(rows), tuple(parents), tuple(rows), tuple(tokens), None, ())
        return request.place(segment).picking

    assert picking([0, 1]) is None
    assert picking([0, 1], sampling=Sampling(seed=4, eos=(3,))) is None
    told = picking([0, 1], logprobs=0)
    assert (list(told.positions), told.text, told.certain, told.paths) == ([2], [5, 5], 2, ())
    read = picking([0, 1], sampling=HOW["repetition"])
    assert (list(read.positions), read.text, read.certain, read.paths) == ([2], [5, 5], 2, [()])
    early = picking([0], sampling=HOW["all"])
    assert list(early.positions) == []
