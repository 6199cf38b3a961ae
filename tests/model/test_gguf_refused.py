"""GGUF files that are damaged, incomplete, or say what nobody here knows: refused by name."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import gguf_models
import numpy as np
import pytest
from gguf_models import Written
from transformers import LlamaConfig

from gardener.errors import UserError
from gardener.model.checkpoint.gguf_tensors import INDEX
from gardener.model.checkpoint.resolve import resolve
from gardener.model.checkpoint.tensors import Checkpoint, fingerprint


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return gguf_models.make(
        tmp_path_factory.mktemp("model") / "a.gguf", LlamaConfig(**gguf_models.SIZES)
    )


ODD = np.ones(64, np.float32)


@pytest.mark.parametrize(
    ("without", "changes", "what"),
    [
        ([], {"arch__attention__clamp_kqv": 8.0}, r"llama\.attention\.clamp_kqv"),
        ([], {"prompt__secret": 1}, r"prompt\.secret"),
        ([], {"arch__attention__causal": False}, r"attention\.causal is False"),
        ([], {"arch__attention__value_length": 8}, r"value_length is 8"),
        ([], {"arch__block_count": 2**31}, r"block_count is 2147483648, not from 1 to 1024"),
        ([], {"arch__attention__head_count_kv": 0}, r"head_count_kv is 0, not from 1"),
        ([], {"arch__attention__head_count_kv": 5}, r"attn_k\.weight has the shape"),
        ([], {"arch__feed_forward_length": "96"}, r"feed_forward_length is '96'"),
        ([], {"arch__feed_forward_length": [96, 48]}, r"feed_forward_length is \[96, 48\]"),
        (["llama.block_count"], {}, r"no llama\.block_count"),
        ([], {"general__type": "adapter"}, r"general\.type is adapter"),
        ([], {"general__architecture": "mamba"}, "general.architecture is mamba; supported are"),
        ([], {"blk__0__attn_sinks__weight": ODD}, r"tensor blk\.0\.attn_sinks\.weight"),
        ([], {"blk__0__attn_norm__bias": ODD}, r"tensor blk\.\d\.attn_norm\.bias"),
        ([], {"cls__weight": ODD}, r"tensor cls\.weight is not known"),
        ([], {"arch__block_count": 1}, r"tensor blk\.1\..*, and by its metadata 1 layers"),
        ([], {"arch__block_count": 3}, r"no tensor blk\.2\."),
        (["blk.1.ffn_up.weight"], {}, r"no tensor blk\.1\.ffn_up\.weight"),
        (["token_embd.weight"], {}, r"no tensor token_embd\.weight"),
    ],
)
def test_nothing_unknown_is_skipped_and_nothing_missing_made_up(
    written: Written,
    tmp_path: Path,
    home: Path,
    without: list[str],
    changes: dict[str, Any],
    what: str,
) -> None:
    path = gguf_models.alter(written, tmp_path / "b.gguf", *without, **changes)
    with pytest.raises(UserError, match=rf"b\.gguf cannot be used: .*{what}.*: take another file"):
        resolve(str(path))
    assert not [found for found in (home / "models").iterdir() if found.is_dir()]


def test_what_is_known_to_be_without_effect_is_no_hindrance(
    written: Written, tmp_path: Path
) -> None:
    path = gguf_models.alter(
        written,
        tmp_path / "b.gguf",
        general__name="A model",
        general__sampling__temp=0.5,
        general__file_type=7,
        quantize__imatrix__file="x",
        arch__feed_forward_length=[96, 96],
        arch__tensor_data_layout="Meta AI original pth",
        blk__0__attn_rot_embd__weight=ODD,
        blk__1__attn_rot_embd__weight=ODD,
    )
    assert fingerprint(resolve(str(path))) == fingerprint(resolve(str(written.path)))


def test_types_that_cannot_be_computed_with_are_named(written: Written, tmp_path: Path) -> None:
    numbers = np.zeros((64, 64), np.int32)
    tensors = {**written.tensors, "blk.0.attn_q.weight": (numbers, gguf.GGMLQuantizationType.I32)}
    gguf_models.write(tmp_path / "b.gguf", written.metadata, tensors)
    with pytest.raises(UserError, match=r"b\.gguf has tensors of type I32, which cannot be"):
        resolve(str(tmp_path / "b.gguf"))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda raw: b"", "it is empty"),
        (lambda raw: b"PK" + raw[2:], "it does not begin with GGUF"),
        (lambda raw: raw[:2000], "it ends within its header"),
        (lambda raw: raw[:-1000], r"it ends before \S+ does"),
        (lambda raw: raw[:4] + struct.pack("<I", 1) + raw[8:], "it is of version 1"),
        (lambda raw: raw[:4] + struct.pack(">I", 3) + raw[8:], "big-endian"),
        (lambda raw: raw[:8] + struct.pack("<Q", 2**60) + raw[16:], r"header|twice|axes|codec"),
        (lambda raw: raw[:16] + struct.pack("<Q", 2**60) + raw[24:], r"header|type|twice|codec"),
        (lambda raw: raw[:24] + struct.pack("<Q", 2**62) + raw[32:], "it ends within its header"),
    ],
)
def test_a_damaged_file_is_called_so(
    written: Written, tmp_path: Path, damage: Any, what: str
) -> None:
    (tmp_path / "b.gguf").write_bytes(damage(written.path.read_bytes()))
    with pytest.raises(UserError, match=rf"b\.gguf cannot be read: .*({what}).*, and whole\?"):
        resolve(str(tmp_path / "b.gguf"))


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _replaced(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no index": lambda folder: (folder / INDEX).unlink(),
    "half an index": lambda folder: (folder / INDEX).write_bytes(b"{"),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "an empty config": lambda folder: (folder / "config.json").write_bytes(b""),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "no template": lambda folder: (folder / "tokenizer_config.json").unlink(),
    "no end": lambda folder: (folder / "generation_config.json").unlink(),
    "no link": lambda folder: (folder / "a.gguf").unlink(),
    "an empty folder": _emptied,
    "a file in its place": _replaced,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_light_folder_that_is_damaged_is_made_anew(written: Written, damage: str) -> None:
    folder = resolve(str(written.path))
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    DAMAGES[damage](folder)
    said: list[str] = []
    assert resolve(str(written.path), say=said.append) == folder
    assert said == ["reading what a.gguf says (once)"]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole
    resolve(str(written.path), say=said.append)
    assert len(said) == 1


def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "b.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"b\.gguf is a git-lfs pointer"):
        resolve(str(tmp_path / "b.gguf"))


def test_a_folder_of_gguf_files_says_which_to_give(tmp_path: Path) -> None:
    for name in ("m-Q8_0.gguf", "m-Q4_0.gguf"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"has GGUF files: give one .* --draft-model \S+m-Q4_0\.g"):
        resolve(str(tmp_path), option="--draft-model")


def test_a_random_byte_changed_in_the_header_never_ends_in_a_crash(
    written: Written, tmp_path: Path
) -> None:
    raw, chance = written.path.read_bytes(), np.random.default_rng(0)
    for number in range(150):
        damaged = bytearray(raw)
        damaged[int(chance.integers(0, 9000))] ^= int(chance.integers(1, 256))
        file = tmp_path / f"{number}.gguf"
        file.write_bytes(damaged)
        assert str(file) in _refusal(file)
        file.unlink()


def _refusal(file: Path) -> str:
    """What is said of a file; its name, if all of it can be read."""
    try:
        checkpoint = Checkpoint(resolve(str(file)))
        for name in checkpoint.names():
            checkpoint.read(name)
    except UserError as error:
        return str(error)
    return str(file)


def _in_parts(written: Written, folder: Path, count: int = 3) -> list[Path]:
    """The file in several, as llama-gguf-split writes them."""
    names = list(written.tensors)
    files = []
    for part in range(count):
        file = folder / f"m-{part + 1:05}-of-{count:05}.gguf"
        metadata = {
            **(written.metadata if part == 0 else {"general.architecture": "llama"}),
            "split.no": part,
            "split.count": count,
            "split.tensors.count": len(names),
        }
        chosen = {name: written.tensors[name] for name in names[part::count]}
        gguf_models.write(file, metadata, chosen)
        files.append(file)
    return files


def test_parts_are_one_model_whichever_is_given(written: Written, tmp_path: Path) -> None:
    files = _in_parts(written, tmp_path)
    folders = {resolve(str(file)) for file in files}
    assert len(folders) == 1
    (folder,) = folders
    assert fingerprint(folder) == fingerprint(resolve(str(written.path)))
    checkpoint = Checkpoint(folder)
    assert all((checkpoint.read(n) == v).all() for n, v in written.values.items())
    files[1].unlink()
    with pytest.raises(
        UserError, match=r"one of 3 parts of a model, and m-00002-of-00003\.gguf is"
    ):
        resolve(str(files[0]))
    with pytest.raises(UserError, match=r"m-00002-of-00003\.gguf cannot be read"):
        [Checkpoint(folder).sample(name) for name in checkpoint.names()]


def test_a_part_under_another_name_says_what_to_give(written: Written, tmp_path: Path) -> None:
    files = _in_parts(written, tmp_path)
    files[0].rename(tmp_path / "first.gguf")
    with pytest.raises(UserError, match=r"one of 3 parts .* named like NAME-00001-of-00003\.gguf"):
        resolve(str(tmp_path / "first.gguf"))
    files[2].rename(files[0])
    files[1].rename(files[2])
    (tmp_path / "first.gguf").rename(files[1])
    with pytest.raises(UserError, match=r"00001-of-00003\.gguf is part 3 of its model, and named"):
        resolve(str(files[1]))
