"""From settings to drafters, and from what a user calls a head to its folder."""

import json
import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import heads
import numpy as np
import pytest
import tiny
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from gardener.draft import shipped as trained
from gardener.draft.calibration import IDENTITY, Calibration
from gardener.draft.drafter import Drafter
from gardener.draft.eagle import Eagle3
from gardener.draft.eagle_config import TAPS
from gardener.draft.eagle_files import load_eagle
from gardener.draft.factory import KINDS, DraftSettings, drafters, names
from gardener.draft.incremental import Incremental
from gardener.draft.resolve import resolve_head
from gardener.draft.shipped import TARGET, head_for, likely_head
from gardener.errors import UserError
from gardener.model.checkpoint.resolve import resolve
from gardener.model.checkpoint.tensors import fingerprint
from gardener.model.kernels import int8
from gardener.model.kernels.int8 import Int8Linear
from gardener.rings.equipment import holder_folder
from gardener.rings.settings import RingSettings

THREE = {"num_key_value_heads": 2, "draft_vocab_size": 30}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder, num_hidden_layers=8)
    return folder


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose heads are in this folder, which has none yet."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setattr(trained, "__file__", str(folder / "__init__.py"))
    return folder


def plant(folder: Path, **more: Any) -> Path:
    """A head for the model."""
    config = heads.config(**THREE | more)
    return heads.write(folder, config, heads.eagle3_tensors(config, taps=3), pickled=False)


def no_names(name: str) -> Path:
    raise AssertionError(f"{name} was asked for")


def listed(*folders: Path) -> tuple[Callable[[str], Path], list[str]]:
    """Finds folders by name, and what it was asked for."""
    asked: list[str] = []

    def resolve(name: str) -> Path:
        asked.append(name)
        return next(folder for folder in folders if folder.name == name)

    return resolve, asked


def kinds(found: Sequence[Drafter]) -> list[str]:
    return [drafter.name for drafter in found]


# --- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["oak", "Eagle", "", "ngram,eagle", "none"])
def test_unknown_kinds_are_refused(kind: str) -> None:
    with pytest.raises(UserError, match=f"no drafter '{kind}': --draft takes ngram, eagle, model"):
        DraftSettings(kinds=("ngram", kind))


@pytest.mark.parametrize("chosen", [(), ("ngram",), ("ngram", "model")])
def test_a_head_needs_eagle_among_the_kinds(chosen: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="--head is given, but --draft leaves eagle out"):
        DraftSettings(kinds=chosen, head="some/head", model="some/model")


@pytest.mark.parametrize("chosen", [(), ("ngram",), ("ngram", "eagle")])
def test_a_draft_model_needs_model_among_the_kinds(chosen: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="--draft-model is given, but --draft leaves model out"):
        DraftSettings(kinds=chosen, model="some/model")


def test_model_among_the_kinds_needs_a_draft_model() -> None:
    with pytest.raises(UserError, match="--draft model needs --draft-model"):
        DraftSettings(kinds=("model",))


def test_what_fits_together_is_taken() -> None:
    DraftSettings()
    DraftSettings(head="some/head", model="some/model")
    DraftSettings(kinds=KINDS, head="some/head", model="some/model")
    DraftSettings(kinds=("eagle",))
    DraftSettings(kinds=())


def test_the_models_matrices_are_borrowed_by_heads_only(model: Path) -> None:
    assert DraftSettings(head="some/head").borrows(model)
    assert DraftSettings(kinds=("eagle",), head="some/head").borrows(model)
    assert not DraftSettings(kinds=()).borrows(model)
    assert not DraftSettings(kinds=("ngram", "model"), model="some/model").borrows(model)


def test_a_shipped_head_borrows_if_it_is_used(model: Path, shelf: Path) -> None:
    wide = (DraftSettings(), DraftSettings(kinds=("ngram", "eagle")))
    assert not any(settings.borrows(model) for settings in wide)
    plant(shelf / "head", **{TARGET: fingerprint(model)})
    assert all(settings.borrows(model) for settings in wide)
    assert not DraftSettings(kinds=("ngram",)).borrows(model)
    plant(shelf / "head", **{TARGET: "another:model"})
    assert not any(settings.borrows(model) for settings in wide)


# --- drafters --------------------------------------------------------------------------------


def test_without_a_word_there_is_the_ngram_drafter(model: Path) -> None:
    found = drafters(DraftSettings(), model, no_names, no_names)
    assert kinds(found) == ["ngram"]
    assert [drafter.instant for drafter in found] == [True]


def test_no_kinds_are_no_drafters(model: Path, shelf: Path) -> None:
    plant(shelf / "head", **{TARGET: fingerprint(model)})
    assert drafters(DraftSettings(kinds=()), model, no_names, no_names) == []


def test_a_head_by_name_comes_after_the_ngram_drafter(model: Path, tmp_path: Path) -> None:
    resolve, asked = listed(plant(tmp_path / "head"))
    found = drafters(DraftSettings(head="head"), model, resolve, resolve)
    assert kinds(found) == ["ngram", "eagle"]
    assert asked == ["head"]
    assert found[1].taps == (2, 4, 5)
    assert not found[1].instant
    assert kinds(
        drafters(DraftSettings(kinds=("eagle",), head="head"), model, resolve, resolve)
    ) == ["eagle"]


def test_a_head_brings_its_calibration(model: Path, tmp_path: Path) -> None:
    head = plant(tmp_path / "head")
    resolve, _ = listed(head)

    def weights() -> list[float]:
        (found,) = drafters(DraftSettings(kinds=("eagle",), head="head"), model, resolve, resolve)
        assert isinstance(found, Incremental)
        return list(found.calibration.weights.tolist())

    assert weights() == list(IDENTITY)
    Calibration(np.arange(8.0)).write(head / "calibration.json")
    assert weights() == [0, 1, 2, 3, 4, 5, 6, 7]
    (head / "calibration.json").write_text("{}")
    with pytest.raises(UserError, match="take it away"):
        weights()


def test_a_head_that_does_not_fit_is_refused(model: Path, tmp_path: Path) -> None:
    resolve, _ = listed(plant(tmp_path / "head", num_hidden_layers=2))
    with pytest.raises(UserError, match="does not fit the model"):
        drafters(DraftSettings(head="head"), model, resolve, resolve)


def test_a_small_model_comes_last(model: Path, tmp_path: Path) -> None:
    tiny.make("smollm", tmp_path / "small")
    resolve, asked = listed(tmp_path / "small", plant(tmp_path / "head"))
    found = drafters(DraftSettings(model="small"), model, resolve, resolve)
    assert kinds(found) == ["ngram", "model"]
    assert not found[1].instant
    assert found[1].taps == ()
    assert kinds(
        drafters(DraftSettings(head="head", model="small"), model, resolve, resolve)
    ) == list(KINDS)
    mixed = DraftSettings(kinds=("model", "eagle", "ngram"), head="head", model="small")
    assert kinds(drafters(mixed, model, resolve, resolve)) == list(KINDS)
    assert asked == ["small", "head", "small", "head", "small"]


def test_heads_and_models_are_looked_for_each_in_its_own_way(model: Path, tmp_path: Path) -> None:
    tiny.make("smollm", tmp_path / "small")
    find_head, heads_asked = listed(plant(tmp_path / "head"))
    find_model, models_asked = listed(tmp_path / "small")
    drafters(DraftSettings(head="head", model="small"), model, find_head, find_model)
    assert (heads_asked, models_asked) == (["head"], ["small"])


def test_dtypes_reach_the_networks(model: Path, tmp_path: Path) -> None:
    tiny.make("smollm", tmp_path / "small")
    resolve, _ = listed(tmp_path / "small", plant(tmp_path / "head"))
    settings = DraftSettings(kinds=("eagle", "model"), head="head", model="small", dtype="bfloat16")
    for drafter in drafters(settings, model, resolve, resolve):
        assert isinstance(drafter, Incremental)
        assert str(drafter.network.dtype) == "torch.bfloat16"


@pytest.mark.parametrize(
    ("dtype", "pays", "made"),
    [
        ("auto", True, Int8Linear),
        ("auto", False, None),
        ("int8", False, Int8Linear),
        ("float32", True, None),
    ],
)
def test_heads_are_in_8_bits_where_that_is_asked_for_or_faster(
    dtype: str,
    pays: bool,
    made: type | None,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(int8, "int8_works", lambda: True)
    monkeypatch.setattr(int8, "int8_pays", lambda: pays)
    layers: list[object] = []
    monkeypatch.setattr(Int8Linear, "__init__", lambda self, weight, bias: layers.append(self))
    resolve, _ = listed(plant(tmp_path / "head"))
    found = drafters(DraftSettings(("eagle",), "head", dtype=dtype), model, resolve, resolve)
    assert ("int8" in names(found)) == bool(made)
    assert [type(layer) for layer in layers] == ([made] * 5 if made else [])


def test_8_bits_are_refused_where_they_cannot_be_had(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="int8 is for the CPU, and --draft-device is cuda:1"):
        DraftSettings(dtype="int8", device="cuda:1")
    monkeypatch.setattr(int8, "int8_works", lambda: False)
    resolve, _ = listed(plant(tmp_path / "head"))
    with pytest.raises(UserError, match="--draft-dtype int8: this build of torch cannot"):
        drafters(DraftSettings(("eagle",), "head", dtype="int8"), model, resolve, resolve)


def test_drafters_have_names_for_people(model: Path, tmp_path: Path) -> None:
    resolve, _ = listed(plant(tmp_path / "head"))
    found = drafters(DraftSettings(head="head", dtype="bfloat16"), model, resolve, resolve)
    assert names(found) == "ngram + eagle (bfloat16)"
    assert names(drafters(DraftSettings(), model, no_names, no_names)) == "ngram"
    assert names([]) == "none"


# --- heads that are shipped ------------------------------------------------------------------


def test_the_shipped_head_of_the_model_is_found(model: Path, shelf: Path, tmp_path: Path) -> None:
    tiny.make("llama", tmp_path / "other", num_hidden_layers=8, seed=1)
    plant(shelf / "a", **{TARGET: fingerprint(tmp_path / "other"), TAPS: [0, 1, 2]})
    plant(shelf / "b", **{TARGET: fingerprint(model), TAPS: [1, 2, 3]})
    plant(shelf / "c", **{TAPS: [2, 3, 4]})
    for settings in (DraftSettings(), DraftSettings(kinds=("ngram", "eagle"))):
        found = drafters(settings, model, no_names, no_names)
        assert kinds(found) == ["ngram", "eagle"]
        assert found[1].taps == (1, 2, 3)


def test_heads_of_other_models_are_not_taken(model: Path, shelf: Path) -> None:
    plant(shelf / "a", **{TARGET: "0" * 16 + ":" + fingerprint(model).partition(":")[2]})
    plant(shelf / "b")
    assert kinds(drafters(DraftSettings(), model, no_names, no_names)) == ["ngram"]
    with pytest.raises(UserError, match="no head is shipped for this model: say with --head"):
        drafters(DraftSettings(kinds=("eagle",)), model, no_names, no_names)


def test_kinds_without_eagle_leave_the_shipped_head_alone(model: Path, shelf: Path) -> None:
    plant(shelf / "head", **{TARGET: fingerprint(model)})
    assert kinds(drafters(DraftSettings(kinds=("ngram",)), model, no_names, no_names)) == ["ngram"]


def test_a_head_by_name_goes_before_the_shipped_one(
    model: Path, shelf: Path, tmp_path: Path
) -> None:
    plant(shelf / "head", **{TARGET: fingerprint(model), TAPS: [1, 2, 3]})
    resolve, _ = listed(plant(tmp_path / "mine", **{TAPS: [4, 5, 6]}))
    found = drafters(DraftSettings(head="mine"), model, resolve, resolve)
    assert [drafter.taps for drafter in found] == [(), (4, 5, 6)]


def test_a_shipped_head_is_for_the_very_weights(shelf: Path) -> None:
    head = plant(shelf / "head", **{TARGET: "structure:content"})
    assert head_for("structure:content") == head
    assert head_for("structure:") is None
    assert head_for("structure:other") is None
    assert head_for("other:content") is None
    assert [*trained.heads()] == [head]
    plant(shelf / "head", **{TARGET: "structure:"})
    assert head_for("structure:") is None


def test_only_where_the_weights_are_unknown_the_structure_is_a_hint(shelf: Path) -> None:
    head = plant(shelf / "head", **{TARGET: "structure:content"})
    assert likely_head("structure:") == head
    assert likely_head("structure:content") is None
    assert likely_head("structure:other") is None
    assert likely_head("other:") is None


def unknown(model: Path, folder: Path) -> Path:
    """The model, of which only config and index are here."""
    folder.mkdir()
    shutil.copy(model / "config.json", folder)
    names = load_file(model / "model.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model-1-of-1.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_where_the_weights_are_unknown_the_user_has_the_word(
    model: Path, shelf: Path, tmp_path: Path
) -> None:
    partial, notes = unknown(model, tmp_path / "partial"), list[str]()
    drafters(DraftSettings(), partial, no_names, no_names, notes.append)
    assert notes == []
    plant(shelf / "oak-1b", **{TARGET: fingerprint(model)})
    found = drafters(DraftSettings(), partial, no_names, no_names, notes.append)
    assert kinds(found) == ["ngram"]
    (note,) = notes
    assert "not all weights are here to tell whether it is this one: --head oak-1b uses it" in note
    with pytest.raises(UserError, match="--head oak-1b uses it"):
        drafters(DraftSettings(kinds=("eagle",)), partial, no_names, no_names)
    for silent in (DraftSettings(kinds=("ngram",)), DraftSettings(kinds=())):
        drafters(silent, partial, no_names, no_names, notes.append)
    drafters(DraftSettings(), model, no_names, no_names, notes.append)
    assert notes == [note]


def test_a_fine_tune_gets_no_head_by_itself(model: Path, shelf: Path, tmp_path: Path) -> None:
    plant(shelf / "head", **{TARGET: fingerprint(model)})
    tuned = Path(shutil.copytree(model, tmp_path / "tuned"))
    tensors = {name: t + 0.01 for name, t in load_file(tuned / "model.safetensors").items()}
    save_file(tensors, tuned / "model.safetensors")
    assert kinds(drafters(DraftSettings(), tuned, no_names, no_names)) == ["ngram"]
    found = drafters(DraftSettings(head="head"), tuned, resolve_head, no_names)
    assert kinds(found) == ["ngram", "eagle"]


# --- resolve_head ----------------------------------------------------------------------------


def test_the_folder_of_a_head_is_itself(tmp_path: Path) -> None:
    head = plant(tmp_path / "head")
    assert resolve_head(str(head)) == head
    with pytest.raises(UserError, match=r"there is no config\.json"):
        resolve_head(str(tmp_path))


def test_a_home_folder_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    head = plant(tmp_path / "head")
    assert resolve_head("~/head") == head


@pytest.mark.parametrize("name", ["./nope", "/no/such/folder", "a b", "a/b/c", ".hidden"])
def test_a_name_that_is_no_head_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"no head {name}: --head takes a folder or a hub id"):
        resolve_head(name)


def test_a_shipped_head_has_a_name(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = plant(shelf / "oak-1b")
    assert resolve_head("oak-1b") == head
    mine = plant(tmp_path / "oak-1b")
    assert resolve_head("oak-1b").resolve() == mine  # a folder goes first, as with models
    with pytest.raises(UserError, match=r"hub id like owner/name, or names a head .*: oak-1b$"):
        resolve_head("a b")


def test_a_file_is_no_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "head.bin").write_text("hello")
    for name in ("head.bin", str(tmp_path / "head.bin")):
        with pytest.raises(UserError, match=r"there is no head .*head\.bin: --head takes"):
            resolve_head(name)


class Hub:
    """Stands in for `snapshot_download`: copies matching files, lists what it was asked for."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.source, self.cache = source, cache
        self.asked: list[str] = []

    def __call__(
        self, repository: str, *, revision: str | None, allow_patterns: Sequence[str]
    ) -> str:
        self.asked.append(repository)
        self.cache.mkdir(exist_ok=True)
        for file in self.source.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                (self.cache / file.name).write_bytes(file.read_bytes())
        return str(self.cache)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(plant(tmp_path / "there"), tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", found)
    return found


def test_a_head_from_the_hub_is_fetched_with_all_it_has(hub: Hub, model: Path) -> None:
    Calibration(np.arange(8.0)).write(hub.source / "calibration.json")
    (hub.source / "training.log").write_text("long")
    folder = resolve_head("owner/name")
    assert hub.asked == ["owner/name"]
    assert sorted(file.name for file in folder.iterdir()) == [
        "calibration.json",
        "config.json",
        "model.safetensors",
    ]
    assert isinstance(load_eagle(folder, model, dtype="float32", device="cpu"), Eagle3)


def test_a_pickled_head_from_the_hub_is_fetched(hub: Hub) -> None:
    (hub.source / "model.safetensors").rename(hub.source / "pytorch_model.bin")
    assert (resolve_head("owner/name") / "pytorch_model.bin").exists()


def test_a_folder_goes_before_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "owner" / "name")
    assert resolve_head("owner/name") == Path("owner/name")
    assert hub.asked == []


def test_a_repository_without_config_is_no_head(hub: Hub) -> None:
    (hub.source / "config.json").unlink()
    with pytest.raises(UserError, match=r"owner/name has no config\.json here: .*--head takes"):
        resolve_head("owner/name")


def test_a_hub_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> str:
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(UserError, match=r"owner/name is not in the hub's cache: .*--head takes"):
        resolve_head("owner/name")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"unset HF_HUB_OFFLINE .* or give a folder with --head$"):
        resolve_head("owner/name")


def test_a_shipped_head_with_a_broken_config_is_named(shelf: Path) -> None:
    head = plant(shelf / "head")
    (head / "config.json").write_text(json.dumps([]))
    with pytest.raises(UserError, match="does not hold a JSON object"):
        head_for("structure:content")


# --- what the holder of a ring fetches -------------------------------------------------------


def sharded(hub: Hub, model: Path, **config: Any) -> None:
    """The model on the hub: the embedding in a file, the output matrix in one, all else in one."""
    hub.source = hub.cache.parent / "sharded"
    hub.source.mkdir()
    parts: dict[str, dict[str, Any]] = {}
    for name, tensor in load_file(model / "model.safetensors").items():
        part = "embed" if "embed" in name else "head" if "lm_head" in name else "layers"
        parts.setdefault(f"{part}.safetensors", {})[name] = tensor
    for file, tensors in parts.items():
        save_file(tensors, hub.source / file)
    weight_map = {name: file for file, tensors in parts.items() for name in tensors}
    text = json.dumps({"weight_map": weight_map})
    (hub.source / "model.safetensors.index.json").write_text(text)
    stated = json.loads((model / "config.json").read_text())
    (hub.source / "config.json").write_text(json.dumps(stated | config))


def fetched(hub: Hub, draft: DraftSettings) -> list[str]:
    """The weight files that the holder of a ring then has."""
    settings = RingSettings(
        model="owner/model",
        revision=None,
        local=None,
        peer="127.0.0.1:7001",
        listen="127.0.0.1:7000",
        dtype="float32",
        device="cpu",
        threads=1,
        quant="none",
        patience=1.0,
        draft=draft,
    )
    folder = holder_folder(settings, lambda line: None)
    assert folder == hub.cache
    return sorted(file.name for file in folder.glob("*.safetensors"))


ENDS = ["embed.safetensors", "head.safetensors"]


@pytest.mark.parametrize("chosen", [None, ("eagle",)])
def test_the_holder_fetches_what_a_shipped_head_borrows(
    chosen: tuple[str, ...] | None, hub: Hub, model: Path, shelf: Path
) -> None:
    mark = fingerprint(model)
    sharded(hub, model, gardener={"stage": 0, "fingerprint": mark})  # so that it is known
    assert fetched(hub, DraftSettings(kinds=chosen)) == []
    more: dict[str, Any] = THREE | {TARGET: mark}
    config = heads.config(**more)
    tensors = heads.eagle3_tensors(config, taps=3, lm_head=False)
    heads.write(shelf / "head", config, tensors, pickled=False)
    assert fetched(hub, DraftSettings(kinds=("ngram",))) == []
    assert fetched(hub, DraftSettings(kinds=chosen)) == ENDS
    found = drafters(DraftSettings(kinds=chosen), hub.cache, no_names, no_names)
    assert kinds(found)[-1] == "eagle"


def test_the_holder_fetches_nothing_for_a_head_that_may_be_another_models(
    hub: Hub, model: Path, shelf: Path
) -> None:
    plant(shelf / "head", **{TARGET: fingerprint(model)})
    sharded(hub, model)
    assert fetched(hub, DraftSettings()) == []
    assert fetched(hub, DraftSettings(kinds=("eagle",))) == []
    assert fetched(hub, DraftSettings(head="head")) == ENDS


def test_a_model_that_is_all_here_is_known(hub: Hub, model: Path, shelf: Path) -> None:
    plant(shelf / "head", **{TARGET: fingerprint(model)})
    sharded(hub, model)
    resolve("owner/model")
    assert DraftSettings().borrows(hub.cache)
    assert kinds(drafters(DraftSettings(), hub.cache, no_names, no_names)) == ["ngram", "eagle"]
