"""What is accepted out of order finds its place in the cache of a stage, whatever becomes of the
pass that brings word of it; and a stage whose attention cannot be exact."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from device_stages import anywhere as anywhere

from gardener.model.checkpoint.slices import Slice
from gardener.model.kernels import machine
from gardener.model.kv_slots import SlotTable
from gardener.model.tensors import unpack
from gardener.protocol.messages import Open
from gardener.stages import passes
from gardener.stages.executor import Executor
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage

pytestmark = pytest.mark.usefixtures("anywhere")

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
ROOT = len(PROMPT) - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder)
    return folder


def stage_of(folder: Path) -> Executor:
    return load_stage(folder, Slice(0, 3, 4), dtype="bfloat16")


class Text:
    """A request at a stage, and what the stage gives for its rows."""

    def __init__(self, stage: Executor, number: int, prompt: Sequence[int]) -> None:
        self.stage, self.number = stage, number
        self.table = SlotTable(len(prompt), 100)
        stage.open(Open(number, len(prompt), 100))
        ids = list(range(len(prompt)))
        self.hidden(ids, [i - 1 for i in ids], ids, prompt)

    def placed(
        self, ids: Sequence[int], parents: Sequence[int], at: Sequence[int], tokens: Sequence[int]
    ) -> PlacedSegment:
        return PlacedSegment(self.number, self.table.place(ids, parents, at), tokens=tokens)

    def hidden(
        self, ids: Sequence[int], parents: Sequence[int], at: Sequence[int], tokens: Sequence[int]
    ) -> torch.Tensor:
        done = self.stage.run([self.placed(ids, parents, at, tokens)])
        assert done is not None
        assert done[0].hidden is not None
        return unpack(done[0].hidden)


def forked(stage: Executor, number: int = 1) -> Text:
    """Two branches after the prompt, of which the one that stands out of order is accepted."""
    text, end = Text(stage, number, PROMPT), len(PROMPT)
    ids, parents = [end, end + 1, end + 2], [ROOT, ROOT, end + 1]
    text.hidden(ids, parents, [end, end, end + 1], [11, 12, 13])
    text.table.advance([ROOT, end + 1], end + 2)
    return text


def plain(stage: Executor, tokens: Sequence[int]) -> torch.Tensor:
    """What the last of these gives, token by token."""
    text = Text(stage, 9, tokens[:1])
    for at, token in enumerate(tokens[1:], 1):
        text.table.advance([], at)
        last = text.hidden([at], [at - 1], [at], [token])
    stage.close(9)
    return last


@pytest.mark.parametrize("how", ["computed", "cancelled", "no rows"])
def test_rows_are_moved_whatever_becomes_of_their_pass(folder: Path, how: str) -> None:
    stage, end = stage_of(folder), len(PROMPT)
    text = forked(stage)
    nothing: list[int] = []
    if how == "computed":
        row = [end + 3], [end + 2], [end + 2], [14]
        assert torch.equal(text.hidden(*row), plain(stage, [*PROMPT, 12, 13, 14]))
    elif how == "cancelled":
        dead = text.placed([end + 3], [end + 2], [end + 2], [15])
        assert dead.placement.moves is not None
        dead.cancelled.set()
        assert stage.run([dead]) is None
    else:
        assert stage.run([text.placed(nothing, nothing, nothing, nothing)]) is not None
    row = [end + 4], [end + 2], [end + 2], [16]
    assert torch.equal(text.hidden(*row), plain(stage, [*PROMPT, 12, 13, 16]))


def test_what_is_kept_before_it_is_moved_stands_in_order(folder: Path) -> None:
    stage, end = stage_of(folder), len(PROMPT)
    text = forked(stage)
    slots = text.table.keep_certain()
    assert slots.tolist() != list(range(end + 2))
    stage.keep(1, slots)
    stage.open(Open(2, end + 3, 100, prefix=(1, end + 2)), text.table.first(end + 2))
    other = Text.__new__(Text)
    other.stage, other.number = stage, 2
    other.table = SlotTable(end + 3, 100, shared=end + 2)
    row = [end + 2], [end + 1], [end + 2], [17]
    assert torch.equal(other.hidden(*row), plain(stage, [*PROMPT, 12, 13, 17]))


def test_requests_of_one_pass_move_their_own(folder: Path) -> None:
    stage, end = stage_of(folder), len(PROMPT)
    row = [end + 3], [end + 2], [end + 2], [18]
    batch = [forked(stage, number).placed(*row) for number in (4, 3)]
    done = stage.run(batch)
    assert done is not None
    expected = plain(stage, [*PROMPT, 12, 13, 18])
    for computed in done:
        assert computed.hidden is not None
        assert torch.equal(unpack(computed.hidden), expected)


def test_what_is_broken_is_so_in_its_new_place(folder: Path) -> None:
    stage, end = stage_of(folder), len(PROMPT)
    text = forked(stage)
    cache = stage._caches[1]
    cache.broken[int(text.table.first(end + 2)[end])] = 2
    text.hidden([end + 3], [end + 2], [end + 2], [14])
    assert cache.broken[end] == 2


def test_without_an_order_of_sums_attention_is_computed_in_float64(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = stage_of(folder)
    monkeypatch.setattr(machine, "has_own_kernels", lambda device: False)
    monkeypatch.setattr(passes, "least_lines", lambda *shape: None)
    stage, end = stage_of(folder), len(PROMPT)
    row = [end + 3], [end + 2], [end + 2], [14]
    wide = forked(stage).hidden(*row)
    assert torch.equal(wide, plain(stage, [*PROMPT, 12, 13, 14]))
    exact = unpack_as_float(forked(usual).hidden(*row))
    np.testing.assert_allclose(unpack_as_float(wide), exact, atol=0.05)


def unpack_as_float(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().numpy()
