"""One-pass heads by recorded work guess what they do without. See `test_recorded`."""

import gc
import random
from pathlib import Path
from typing import Any

import heads
import one_pass
import pytest
import recorders
import test_one_pass
import tiny
import torch

from gardener.decoding.tree import Tree
from gardener.draft import block_drafter
from gardener.draft.block import BlockNetwork
from gardener.draft.block_drafter import BlockDraft, BlockDrafter
from gardener.draft.calibration import Calibration
from gardener.draft.device import blocks, seats, steps
from gardener.draft.device.blocks import RecordedContext
from gardener.draft.drafter import Draft
from gardener.draft.incremental import NoGuesses
from gardener.errors import LocalError
from gardener.model.checkpoint.table import FloatTable
from gardener.model.tensors import pack
from gardener.protocol.sampling import GREEDY, Sampling

PROMPT = test_one_pass.PROMPT


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder, num_hidden_layers=8)
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities as the network gives them."""
    monkeypatch.setattr(Calibration, "corrected", lambda self, chance, *where: chance)


def recorded(play: test_one_pass.Play) -> recorders.Replaying:
    """Let what is checked be drafted by recorded work."""
    recorder = recorders.Replaying()
    width = play.drafter._width
    play.drafter = BlockDrafter(play.network, Calibration(), width, recorder=recorder)
    begin(play)
    return recorder


def begin(play: test_one_pass.Play) -> None:
    """The text from its beginning, when the one before has ended."""
    play.draft = NoGuesses()
    gc.collect()
    play.draft = play.drafter.open(PROMPT)
    play.text, play.features = list(PROMPT), play.features[:0]
    play.tree = Tree(len(PROMPT) - 1, PROMPT[-1])
    play.prefill()


def go_on(play: test_one_pass.Play, turns: int) -> None:
    for _ in range(turns):
        play.check()
        play.check()
        play.advance()


@pytest.mark.parametrize("kind", ["dflash", "dspark"])
def test_guesses_equal_the_reference(kind: str, model: Path, tmp_path: Path) -> None:
    play = test_one_pass.Play(tmp_path, model, kind)
    recorder = recorded(play)
    go_on(play, 5)
    known = recorder.recordings
    begin(play)
    go_on(play, 3)
    assert recorder.recordings <= known + 1, "the second text sits where the first one did"


def test_a_text_that_grows_out_of_its_seat(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "FIRST_SLOTS", 16)
    monkeypatch.setattr(blocks, "AHEAD", 0)
    monkeypatch.setattr(steps, "LOOK", 16)
    play = test_one_pass.Play(tmp_path, model)
    recorded(play)
    go_on(play, 12)
    assert isinstance(play.draft, BlockDraft)
    assert isinstance(play.draft._context, RecordedContext)
    assert play.draft._context._seat.slots >= 32


def test_features_that_come_in_pieces(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_drafter, "AT_ONCE", 2)
    play = test_one_pass.Play(tmp_path, model)
    recorded(play)
    go_on(play, 2)


@pytest.mark.parametrize("shared", [1, 5, 8])
def test_a_text_takes_over_what_another_begins_with(
    shared: int, model: Path, tmp_path: Path
) -> None:
    play = test_one_pass.Play(tmp_path, model)
    recorded(play)
    play.check()
    other, features = play.draft, play.features
    play.text = [*PROMPT[:shared], 11, 12]
    play.draft = play.drafter.open(play.text, source=(other, shared))
    play.tree = Tree(len(play.text) - 1, play.text[-1])
    play.features = features[: shared - 1]
    play.draft.settle((), play.feel(len(play.text) - shared))
    go_on(play, 2)


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0.8, seed=3), Sampling(repetition_penalty=1.3), GREEDY]
)
def test_however_the_target_picks(sampling: Sampling, model: Path, tmp_path: Path) -> None:
    network = test_one_pass.Play(tmp_path, model).network
    recorder = recorders.Replaying()
    with_it = BlockDrafter(network, Calibration(), 5, recorder=recorder)
    without = BlockDrafter(network, Calibration(), 5)
    told = [said(drafter.open(PROMPT, sampling), network) for drafter in (with_it, without)]
    for mine, theirs in zip(*told, strict=True):
        assert [guess.token for guess in mine] == [guess.token for guess in theirs]
        due = [pytest.approx(guess.probability, abs=1e-5) for guess in theirs]
        assert [guess.probability for guess in mine] == due
    assert recorder.replays


def said(draft: Draft, network: BlockNetwork) -> list[Any]:
    """Of the root and a few nodes below it, before and after two tokens are accepted."""
    source, chance = torch.Generator().manual_seed(1), random.Random(1)
    tree, due = Tree(len(PROMPT) - 1, PROMPT[-1]), len(PROMPT) - 1
    told: list[Any] = []
    for _ in range(2):
        nodes = []
        for token in (5, 6) if told else ():
            tree.advance(token)
            nodes.append(tree[tree.root])
        new = torch.randn(due, 3 * network.outputs, generator=source)
        draft.settle(nodes, [pack(part) for part in new.chunk(3, -1)])
        child = tree.graft(tree.root, chance.randrange(61), 0.0).id
        told += heads.said(draft.expand([tree.lineage(node) for node in (tree.root, child)]))
        due = 2
    return told


def test_a_table_that_is_not_on_the_device(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FloatTable, "is_on", lambda self, device: False)
    play = test_one_pass.Play(tmp_path, model)
    recorder = recorded(play)
    go_on(play, 2)
    assert recorder.replays


def test_without_a_block_there_is_nothing_to_ask(model: Path, tmp_path: Path) -> None:
    network = test_one_pass.Play(tmp_path, model).network
    for drafter in (
        BlockDrafter(network, Calibration()),
        BlockDrafter(network, Calibration(), recorder=recorders.Replaying()),
    ):
        draft = drafter.open(PROMPT)
        assert isinstance(draft, BlockDraft)
        with pytest.raises(LocalError, match="a block that is not there"):
            draft._context.best([0], [1], draft._ranking, 5, PROMPT, [[]])


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_features_that_are_no_numbers_leave_none_behind(
    wrong: float, model: Path, tmp_path: Path
) -> None:
    """Nor do those of another text get into rows that fill up."""
    network = test_one_pass.Play(tmp_path, model).network
    pool = blocks.RecordedBlocks(network, recorders.Replaying(), 4)
    for rows, value in ((3, wrong), (1, 1.0)):
        context = pool.open(4)
        with torch.inference_mode():
            context.add(torch.full((rows, 3 * one_pass.WIDTH), value))
            context.block(5)
            context._flush()
        for entries in context._seat.cache.read(0):
            assert entries.isfinite().all()
            assert entries.abs().max() < 1e4
    [parcel] = pool._parcels.values()
    assert parcel.here["features"][0].all()
    assert not parcel.here["features"][1:].any()
