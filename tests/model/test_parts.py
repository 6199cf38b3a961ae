"""Everybody finds their own part in what `gardener split` wrote, and nobody takes another's."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from gardener.cli.program import run
from gardener.errors import UserError
from gardener.model.checkpoint.parts import HOLDER
from gardener.model.checkpoint.resolve import resolve
from gardener.model.checkpoint.slices import Slice, parse_layers
from gardener.model.checkpoint.split import split
from gardener.rings.equipment import holder_folder
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings
from gardener.stages.phases import Phases
from gardener.stages.settings import NodeSettings
from gardener.stages.start import load

CUT = parse_layers("0-0,1-2,3", 4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("smollm", folder)
    tiny.name_words(folder)
    return folder


@pytest.fixture
def top(whole: Path, tmp_path: Path) -> Path:
    split(whole, CUT, tmp_path / "cut")
    return tmp_path / "cut"


def _node(model: Path, stage: int, stages: int | None = None) -> NodeSettings:
    return NodeSettings(
        stage=stage,
        peer="127.0.0.1:1",
        listen="127.0.0.1:0",
        model=str(model),
        revision=None,
        stages=stages,
        layers=None,
        dtype="float32",
        device="cpu",
        threads=1,
        quant="none",
        patience=1.0,
    )


def _ring(model: Path, local: int | None = None) -> RingSettings:
    return RingSettings(
        model=str(model),
        revision=None,
        local=local,
        peer=None if local else "127.0.0.1:1",
        listen="127.0.0.1:0",
        dtype="float32",
        device="cpu",
        threads=1,
        quant="none",
        patience=1.0,
    )


@pytest.mark.parametrize("stages", [None, 3])
def test_a_node_finds_its_stage_below_the_top_folder(top: Path, stages: int | None) -> None:
    """Its layers are those that were cut, not those that an even cut would give it."""
    for stage, held in enumerate(CUT, 1):
        assert load(_node(top, stage, stages), Phases(1), print).slice == held
        assert load(_node(top / f"stage-{stage}", stage, stages), Phases(1), print).slice == held


def test_the_holder_finds_its_part_below_the_top_folder(top: Path) -> None:
    assert holder_folder(_ring(top), print) == top / "holder"
    assert holder_folder(_ring(top / "holder"), print) == top / "holder"


def test_a_whole_model_is_whoevers_it_is(whole: Path) -> None:
    assert resolve(str(whole)) == resolve(str(whole), part=HOLDER) == whole
    assert load(_node(whole, 2, 2), Phases(1), print).slice.is_last


@pytest.mark.parametrize(
    ("folder", "part", "why"),
    [
        ("stage-2", 3, r"stage-2 holds stage 2, and this is stage 3: give it stage-3 of the same"),
        ("stage-2", 3, r"or --stage 2$"),
        ("holder", 1, r"holds the holder's part, and this is stage 1: give it stage-1 .* split$"),
        ("stage-1", HOLDER, r"holds stage 1, and this is the holder: give it holder of .* split$"),
        ("stage-1", None, r"holds stage 1 of a split model only: give the whole model"),
        ("holder", None, r"holds the holder's part of a split model only"),
        (".", None, r"is a model split into 3 stages, and the whole one is needed here"),
        (".", 4, r"there is no stage-4 in .*, only holder, stage-1, stage-2, stage-3: copy it"),
    ],
)
def test_another_part_is_refused_by_name(
    top: Path, folder: str, part: int | None, why: str
) -> None:
    with pytest.raises(UserError, match=why):
        resolve(str(top / folder), part=part)


def test_a_node_is_refused_by_name(top: Path) -> None:
    with pytest.raises(UserError, match="holds stage 2, and this is stage 3"):
        load(_node(top / "stage-2", 3), Phases(1), print)
    with pytest.raises(UserError, match="split into 3 stages, and --stages is 2: give --stages 3"):
        load(_node(top, 1, 2), Phases(1), print)


def test_only_what_is_needed_has_to_be_copied(top: Path) -> None:
    for name in ("holder", "stage-1", "stage-3"):
        shutil.rmtree(top / name)
    (top / "manifest.json").unlink()
    assert load(_node(top, 2), Phases(1), print).slice == Slice(1, 3, 4)
    with pytest.raises(UserError, match=r"there is no holder in .*, only stage-2: copy it"):
        holder_folder(_ring(top), print)


def test_a_local_ring_takes_the_top_folder(top: Path) -> None:
    async def first_layers(settings: RingSettings) -> list[int]:
        async with open_ring(settings, print, print, print) as ring:
            assert ring.folder == top / "holder"
            return [card.first for card in ring.stages]

    settings = replace(_ring(top, local=3), patience=90.0)
    assert run(first_layers(settings), settings.loop()) == [held.first for held in CUT]
    with pytest.raises(UserError, match="split into 3 stages, and --local is 2: give --local 3"):
        run(first_layers(replace(settings, local=2)), settings.loop())
