"""Passes on a device, with a stand-in for it: a row has the same bits however it is computed, and
what was recorded for one request serves the next one."""

import random
from collections.abc import Sequence
from math import inf
from pathlib import Path

import pytest
import tiny
import torch
from device_stages import compute_on
from real_stages import RealStages, Truth

from gardener.model.checkpoint.slices import Slice
from gardener.model.device.sizes import ROWS
from gardener.model.kv_slots import SlotTable
from gardener.model.tensors import unpack
from gardener.protocol.messages import Open
from gardener.stages.device_passes import DevicePasses, together_from
from gardener.stages.executor import Executor
from gardener.stages.forward import ComputedSegment, PlacedSegment
from gardener.stages.load import load_stage
from gardener.stages.measure import measure

FIRST, LAST = Slice(0, 2, 4), Slice(2, 4, 4)
CONTEXT = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder, max_position_embeddings=1024)
    return folder


class Text:
    """A request at a stage that holds the first layers."""

    def __init__(self, stage: Executor, number: int, tokens: Sequence[int]) -> None:
        self.stage, self.number, self.tokens = stage, number, list(tokens)
        self.table = SlotTable(len(tokens), CONTEXT)
        stage.open(Open(number, len(tokens), CONTEXT))
        self.root = len(tokens) - 1

    def placed(
        self, ids: Sequence[int], parents: Sequence[int], at: Sequence[int], tokens: Sequence[int]
    ) -> PlacedSegment:
        taps = (0, 1)
        return PlacedSegment(
            self.number, self.table.place(ids, parents, at), tokens=tokens, taps=taps
        )

    def prompt(self, first: int, end: int) -> PlacedSegment:
        ids = range(first, end)
        return self.placed(ids, [i - 1 for i in ids], ids, self.tokens[first:end])

    def read(self, piece: int = 50) -> None:
        """The prompt, so many rows at a time."""
        for first in range(0, len(self.tokens), piece):
            run(self.stage, self.prompt(first, min(first + piece, len(self.tokens))))


def run(stage: Executor, *batch: PlacedSegment) -> list[ComputedSegment]:
    done = stage.run(batch)
    assert done is not None
    return done


def rows_of(computed: ComputedSegment) -> torch.Tensor:
    """All that is known of each row: what leaves, and what is tapped. [rows, all]"""
    assert computed.hidden is not None
    return torch.cat([unpack(each) for each in (computed.hidden, *computed.features)], -1)


def text_of(length: int, seed: int = 1) -> list[int]:
    chance = random.Random(seed)
    return [chance.randrange(tiny.VOCAB) for _ in range(length)]


def alone(stage: Executor, tokens: Sequence[int]) -> torch.Tensor:
    """Each row of a text in a pass of its own."""
    text = Text(stage, 77, tokens)
    made = [rows_of(run(stage, text.prompt(at, at + 1))[0]) for at in range(len(tokens))]
    stage.close(77)
    return torch.cat(made)


@pytest.mark.parametrize("place", ["a device", "a device without graphs"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_has_the_same_bits_in_every_pass(
    dtype: str, place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_on("a device without graphs", monkeypatch)
    tokens = text_of(150)
    expected = alone(load_stage(folder, FIRST, dtype=dtype), tokens)
    compute_on(place, monkeypatch)
    stage = load_stage(folder, FIRST, dtype=dtype)
    assert stage.spread == 0.0
    for number, piece in enumerate((150, 129, 33, 7), 1):  # in one piece, two, and many
        text = Text(stage, number, tokens)
        made = []
        for first in range(0, len(tokens), piece):
            made += run(stage, text.prompt(first, min(first + piece, len(tokens))))
        assert torch.equal(torch.cat([rows_of(each) for each in made]), expected)


def test_what_leaves_is_what_a_processor_computes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = text_of(150)
    host = alone(load_stage(folder, FIRST), tokens)
    compute_on("a device", monkeypatch)
    torch.testing.assert_close(alone(load_stage(folder, FIRST), tokens), host, atol=1e-4, rtol=0)


@pytest.mark.parametrize("together", [2, inf])
def test_requests_of_one_pass_do_not_mind_each_other(
    together: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaying = compute_on("a device", monkeypatch)
    stage = load_stage(folder, FIRST)
    assert isinstance(stage.passes, DevicePasses)
    stage.passes.together = together
    texts = [Text(stage, number, text_of(60 + 30 * number, number)) for number in (1, 2, 3)]
    expected = []
    for text in texts:
        by_itself = Text(stage, 10 + text.number, text.tokens)
        expected.append(rows_of(run(stage, by_itself.prompt(0, len(text.tokens)))[0]))
    before = replaying.replays
    done = run(stage, *(text.prompt(0, len(text.tokens)) for text in texts))
    assert replaying.replays - before == (0 if together == 2 else 4)  # the last one is 150 long
    for computed, rows in zip(done, expected, strict=True):
        assert torch.equal(rows_of(computed), rows)


def test_the_next_request_finds_what_was_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaying = compute_on("a device", monkeypatch)
    stage = load_stage(folder, FIRST)
    for number in (1, 2, 3):
        text = Text(stage, number, text_of(90, number))
        text.read()
        if number == 1:
            recorded = replaying.recordings
            assert recorded
        if number == 2:  # its rows stay, its place does not
            stage.keep(2, text.table.keep_certain())
        else:
            stage.close(number)
    assert replaying.recordings == recorded
    beside = Text(stage, 4, text_of(90, 4)), Text(stage, 5, text_of(90, 5))
    for text in beside:
        text.read()
    assert replaying.recordings == 2 * recorded  # the second one stands elsewhere


def test_a_request_begins_with_what_another_one_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_on("a device", monkeypatch)
    stage, tokens = load_stage(folder, FIRST), text_of(120)
    expected = alone(stage, tokens)
    source = Text(stage, 1, tokens[:100])
    source.read()
    stage.keep(1, source.table.keep_certain())
    stage.open(Open(2, 120, CONTEXT, prefix=(1, 90)), source.table.first(90))
    table = SlotTable(120, CONTEXT, shared=90)
    ids = range(90, 120)
    placement = table.place(ids, [i - 1 for i in ids], ids)
    (done,) = run(stage, PlacedSegment(2, placement, tokens=tokens[90:], taps=(0, 1)))
    assert torch.equal(rows_of(done), expected[90:])


def test_a_tree_that_is_deeper_than_a_tail(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a branch that holds the slots of their positions: nothing stands in order."""
    replaying = compute_on("a device", monkeypatch)
    stage = load_stage(folder, FIRST)
    tokens, branch = text_of(120), text_of(110, 2)
    expected = alone(stage, tokens)
    text = Text(stage, 1, tokens[:10])
    text.read()
    ids = [*range(1000, 1110), *range(2000, 2110)]
    parents = [9, *range(1000, 1109), 9, *range(2000, 2109)]
    at = [*range(10, 120), *range(10, 120)]
    before = replaying.replays
    (done,) = run(stage, text.placed(ids, parents, at, [*branch, *tokens[10:]]))
    assert torch.equal(rows_of(done)[110:], expected[10:])
    assert replaying.replays - before < 220, "rows in order share their passes"


def test_a_pass_is_stopped_before_it_begins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaying = compute_on("a device", monkeypatch)
    stage = load_stage(folder, FIRST)
    text = Text(stage, 1, text_of(150))
    dead = text.prompt(0, 150)
    dead.cancelled.set()
    assert stage.run([dead]) is None
    assert replaying.replays == 0


@pytest.mark.parametrize("policy", ["plain", "serial", "gardener", "flowspec"])
def test_texts_are_those_of_the_model(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_on("a device", monkeypatch)
    model = tiny.make("llama", tmp_path)
    truth, chance = Truth(model), random.Random(3)
    made = RealStages(tmp_path, [FIRST, LAST], chance)
    asked = [
        made.ask(text_of(9, seed), 12, drafts=truth.drafts(chance), policy=policy)
        for seed in (1, 2)
    ]
    made.finish()
    for each, seed in zip(asked, (1, 2), strict=True):
        assert each.emitted == truth.after(text_of(9, seed), 12)


def test_many_picks_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than go through the head together."""
    tokens = text_of(150)
    picks = []
    for place in ("a processor", "a device"):
        compute_on(place, monkeypatch)
        stage = load_stage(folder)
        stage.open(Open(1, 150, CONTEXT))
        placement = SlotTable(150, CONTEXT).place(range(150), range(-1, 149), range(150))
        (done,) = run(stage, PlacedSegment(1, placement, tokens=tokens, pick_rows=range(150)))
        picks.append(done.picks)
    assert len(picks[0]) == 150 > ROWS[-1]
    assert picks[0] == picks[1]


def test_a_stage_on_a_device_times_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaying = compute_on("a device", monkeypatch)
    stage = load_stage(folder, LAST)
    found = measure(stage, 0.0)
    assert [rows for rows, _ in found.short] == [1, 2, 4, 8, 16], "of one size, which is timed"
    assert len({seconds for _, seconds in found.short}) == 1
    assert replaying.recordings >= 2  # layers and head
    assert stage.kv_memory == 0


def test_from_how_many_requests_on_they_go_together() -> None:
    assert together_from(1.0, 3.0, 0.5) == 6  # 3 + 5 * 0.5 < 6 * 1, and 3 + 4 * 0.5 = 5
    assert together_from(2.0, 1.0, 1.0) == 2
    assert together_from(1.0, 3.0, 1.0) == together_from(1.0, 1.0, 2.0) == inf


def test_what_is_tapped_outlives_the_head(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its results may stand where the head computes, once the head was recorded before."""
    features = []
    for place in ("a device without graphs", "a device"):
        compute_on(place, monkeypatch)
        stage = load_stage(folder)
        for taps in ((), (0, 2, 4)):
            stage.open(Open(1, 20, CONTEXT))
            placement = SlotTable(20, CONTEXT).place(range(20), range(-1, 19), range(20))
            (done,) = run(
                stage,
                PlacedSegment(1, placement, text_of(20), pick_rows=range(5, 20), taps=taps),
            )
            stage.close(1)
        features.append([unpack(each) for each in done.features])
    assert [each.shape for each in features[0]] == [(20, stage.width)] * 3
    for alone, recorded in zip(*features, strict=True):
        assert torch.equal(alone, recorded)
