"""`gardener split`: folders that load bit for bit like the source, or nothing at all."""

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from gardener.errors import UserError
from gardener.model.checkpoint.safetensors_writer import SafetensorsWriter
from gardener.model.checkpoint.slices import Slice, parse_layers
from gardener.model.checkpoint.split import Stored, split
from gardener.model.checkpoint.tensors import fingerprint
from gardener.model.kv_slots import SlotTable
from gardener.protocol.messages import Open
from gardener.stages.executor import Executor
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage

CUT = parse_layers("0-0,1-2,3", 4)


@pytest.fixture(params=["llama", "smollm"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    tiny.make(request.param, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    return tmp_path / "model"


def _picks(stages: list[Executor]) -> tuple[int, ...]:
    placement = SlotTable(9, 20).place(range(9), range(-1, 8), range(9))
    placed = PlacedSegment(0, placement, tokens=range(9), pick_rows=range(9))
    picks: tuple[int, ...] = ()
    for stage in stages:
        stage.open(Open(0, 1, 1))
        done = stage.run([placed])
        assert done is not None
        placed = PlacedSegment(0, placement, hidden=done[0].hidden, pick_rows=range(9))
        picks = done[0].picks
    return picks


def test_stage_folders_hold_what_the_source_holds(folder: Path, tmp_path: Path) -> None:
    manifest = split(folder, CUT, tmp_path / "out", name="some/model")
    source = load_file(folder / "model.safetensors")
    for number, held in enumerate(CUT, 1):
        part = load_file(tmp_path / "out" / f"stage-{number}" / "model.safetensors")
        assert all(torch.equal(tensor, source[name]) for name, tensor in part.items())
        tied = "lm_head.weight" not in source
        assert set(part) == {name for name in source if held.holds(name, tied)}
    assert manifest["source"] == "some/model"
    assert manifest["fingerprint"] == fingerprint(folder)
    assert [stage["layers"] for stage in manifest["stages"]] == ["0-0", "1-2", "3-3"]


def test_stage_folders_compute_what_the_source_computes(folder: Path, tmp_path: Path) -> None:
    split(folder, CUT, tmp_path / "out")
    folders = [tmp_path / "out" / f"stage-{number}" for number in (1, 2, 3)]
    stages = [load_stage(part) for part in folders]
    assert [stage.slice for stage in stages] == CUT
    assert {stage.fingerprint for stage in stages} == {fingerprint(folder)}
    assert _picks(stages) == _picks([load_stage(folder)])
    with pytest.raises(UserError, match="holds layers 1-2 only, not 0-1"):
        load_stage(folders[1], Slice(0, 2, 4))
    with pytest.raises(UserError, match="one stage of a model that was split already"):
        split(folders[0], CUT, tmp_path / "again")


def test_the_manifest_lists_every_file_with_its_sum(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = split(folder, CUT, out)
    written = {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()}
    assert written == {*manifest["files"], "manifest.json"}
    # The holder has no layers, but what a draft head borrows.
    assert {
        f"holder/{n}" for n in ("tokenizer.json", "config.json", "model.safetensors")
    } <= written
    for name, entry in manifest["files"].items():
        raw = (out / name).read_bytes()
        assert entry == {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    assert json.loads((out / "manifest.json").read_text()) == manifest


def test_weights_may_be_stored_in_another_dtype(folder: Path, tmp_path: Path) -> None:
    split(folder, CUT, tmp_path / "out", stored=Stored("bfloat16"))
    part = load_file(tmp_path / "out" / "stage-2" / "model.safetensors")
    assert {tensor.dtype for tensor in part.values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "out" / "stage-2" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    stages = [load_stage(tmp_path / "out" / f"stage-{n}", dtype="bfloat16") for n in (1, 2, 3)]
    assert _picks(stages) == _picks([load_stage(folder, dtype="bfloat16")])


def test_a_disk_that_fills_up_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    plain = SafetensorsWriter.write

    def full(self: SafetensorsWriter, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise OSError(errno.ENOSPC, "No space left")
        plain(self, *args)

    monkeypatch.setattr(SafetensorsWriter, "write", full)
    with pytest.raises(UserError, match="the disk is full"):
        split(folder, CUT, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_too_little_room_is_seen_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="GB left"):
        split(folder, CUT, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    split(folder, CUT, tmp_path / "out")  # an empty folder will do
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="is not empty"):
        split(folder, CUT, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_layer_is_named(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    with pytest.raises(UserError, match="no tensors of layer 4"):
        split(folder, parse_layers("0-1,2-4", 5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_one_object(folder: Path, tmp_path: Path) -> None:
    done = gardener("split", str(folder), "--stages", "2", "--out", str(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [stage["layers"] for stage in said["stages"]] == ["0-1", "2-3"]
    assert said["peak_bytes"] > 0


def test_the_command_says_what_it_needs(folder: Path, tmp_path: Path) -> None:
    done = gardener("split", str(folder), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "--stages" in done.stderr
    assert done.stdout == ""


def gardener(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as a user does."""
    start = "from gardener.cli.start import gardener; gardener()"
    return subprocess.run(
        [sys.executable, "-c", start, *arguments], capture_output=True, text=True, check=False
    )
