"""Whole or not at all, and one sentence that says why not: every file that this program writes."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from tokenizers.models import BPE

from gardener.draft.calibration import Calibration
from gardener.draft.train import chunks, report
from gardener.draft.train.dialogue import Dialogue
from gardener.draft.train.export import write_head
from gardener.draft.train.head import DraftHead
from gardener.draft.train.objective import borrow
from gardener.draft.train.plan import Plan
from gardener.draft.train.trainer import Trainer
from gardener.errors import UserError
from gardener.evaluation import plots
from gardener.evaluation.plan import Plan as Evaluation
from gardener.evaluation.results import Results, new_folder
from gardener.model.batch_decoder import Kept
from gardener.model.loader import load_whole
from gardener.protocol.sampling import GREEDY
from gardener.rings.simulate.recording import Recording
from gardener.rings.simulate.targets import Targets
from gardener.runtime import files
from gardener.runtime.files import make_folder, whole_file, whole_folder, write_text

FULL = Path("/dev/full")
on_a_full_device = pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")


def _in_a_file(path: Path, write: Callable[[Path], object]) -> None:
    with whole_file(path) as draft:
        write(draft)


def _in_a_folder(path: Path, write: Callable[[Path], object]) -> None:
    with whole_folder(path) as folder:
        write(folder / "file")


def test_a_file_is_there_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    with whole_file(path) as draft:
        draft.write_text("new")
        assert draft.suffix == ".png"  # some writers go by it
        assert not path.exists()
    assert path.read_text() == "new"
    with pytest.raises(ZeroDivisionError):  # whoever writes is in error, not the disk
        _in_a_file(path, lambda draft: draft.write_text(str(1 / 0)))
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_why_a_file_was_not_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*/gone/a\.txt \(no such file .*with --out"):
        write_text(tmp_path / "gone" / "a.txt", "text")
    with pytest.raises(UserError, match=r"disk is full: .*a\.txt .*: make room there, or go away"):
        raise files.unwritten(tmp_path / "a.txt", OSError(errno.EDQUOT, "Quota"), "go away")
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"cannot be made or written .*: go away"):
            make_folder(folder, "go away")
        with pytest.raises(UserError, match=r"cannot be made or written .* with --out"):
            new_folder(folder)
    with pytest.raises(UserError, match=r"cannot write .*/below .* with --out"):
        _in_a_folder(tmp_path / "file" / "below", Path.touch)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_there_but_read_only_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match="read-only file system"):
        make_folder(tmp_path)


def _tokenizer(path: Path) -> None:
    path.symlink_to(FULL)
    Tokenizer(BPE()).save(str(path))


def _torch(path: Path) -> None:
    """What it raises where some of it could still be written."""
    path.touch()
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError:
        raise RuntimeError("unexpected pos 768 vs 662")  # noqa: B904  # as it does


def _safetensors(path: Path) -> None:
    """What it raises where the disk is full; it would replace a link to a device."""
    path.touch()
    raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(_tokenizer, marks=on_a_full_device),
        _torch,
        _safetensors,
    ],
)
def test_libraries_that_hide_why_are_seen_through(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    """Their errors are no OSError."""
    with pytest.raises(UserError, match=r"the disk is full: .*file was not written"):
        _in_a_file(tmp_path / "file", write)
    if write is not _torch:  # which writes no folders
        with pytest.raises(UserError, match=r"the disk is full: .*folder was not written"):
            _in_a_folder(tmp_path / "folder", write)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("smollm", folder)
    return folder


def _kept(width: int) -> Kept:
    return Kept(torch.zeros(3, width), torch.zeros(3, 2).int(), torch.zeros(3, 2).half())


def _head(folder: Path, model: Path) -> None:
    shape = load_whole(model, dtype="float32", device="cpu").architecture
    write_head(folder, DraftHead(shape, 1, 8, 0), torch.arange(8), (shape.layers,), "of a test")


def _state(folder: Path, model: Path) -> None:
    whole = load_whole(model, dtype="float32", device="cpu")
    head = DraftHead(whole.architecture, 1, 8, 0)
    Trainer(head, borrow(whole, torch.arange(8)), Plan()).save(folder / "state.pt")


def _recording(folder: Path, model: Path) -> None:
    targets = Targets(model, frozenset(), (1,))
    targets._path((1,), GREEDY).parent.mkdir(parents=True, exist_ok=True)
    targets._save(Recording((1, 2), 1, torch.zeros(1, 32)))


WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "results": lambda folder, model: Results({}, Evaluation((), ("plain",), 1, 1)).save(folder),
    "plot": lambda folder, model: plots.speedups(
        "plain", {"a": {"serial": {1: 1.0}}}, folder / "plot.png"
    ),
    "chunk": lambda folder, model: chunks.write(
        folder / "chunk.safetensors", [Dialogue([1, 2, 3], [0, 1, 2], _kept(4))], {}
    ),
    "state": _state,
    "head": _head,
    "calibration": lambda folder, model: Calibration().write(folder / "calibration.json"),
    "report": lambda folder, model: report.write(folder, {}, "# A head"),
    "acceptance": lambda folder, model: report.draw(
        folder / "acceptance.png",
        {
            "first_guess_right": [0.0] * 11,
            "one_of_four_right": [0.0] * 11,
            "curve": [(1, np.zeros(11))],
        },
    ),
    "recording": _recording,
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_be_written_leaves_what_was_there(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written, and written again on a disk that has become full."""
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path))
    WRITERS[name](tmp_path, model)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    assert before

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match="the disk is full"):
        WRITERS[name](tmp_path, model)
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before
