"""GGUF files: the tensors that the `gguf` package makes of them, and the text of transformers."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import gguf_models
import pytest
import tiny
import torch
from gguf_models import Written
from safetensors.torch import load_file
from transformers import (
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from gardener.errors import UserError
from gardener.evaluation.reference import plain_reference
from gardener.model.checkpoint import resolve as models
from gardener.model.checkpoint.gguf_header import read_header
from gardener.model.checkpoint.gguf_tensors import GGUFFile
from gardener.model.checkpoint.slices import Slice, parse_layers
from gardener.model.checkpoint.split import Stored, split
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD, Checkpoint, fingerprint
from gardener.model.checkpoint.weight_files import SAMPLE
from gardener.model.kv_slots import SlotTable
from gardener.protocol.messages import Open
from gardener.stages.executor import Executor
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
BY_256 = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")

LARGE = gguf_models.SIZES | {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def llama(path: Path, kind: str = "Q8_0", **metadata: Any) -> Written:
    return gguf_models.make(path, LlamaConfig(**gguf_models.SIZES), kind, **metadata)


def resolved(written: Written) -> Path:
    return models.resolve(str(written.path))


def check_tensors(written: Written) -> None:
    """Bit for bit."""
    checkpoint = Checkpoint(resolved(written))
    rounded = Checkpoint(checkpoint.folder, torch.bfloat16)
    assert checkpoint.names() == sorted(written.values)
    for name, value in written.values.items():
        found = checkpoint.read(name, tuple(value.shape))
        assert torch.equal(found.float(), value), name
        assert torch.equal(rounded.read(name).bfloat16(), value.bfloat16()), name


def picks(stages: Sequence[Executor], tokens: Sequence[int]) -> tuple[int, ...]:
    """The token after each of these, from stages one behind the other."""
    count = len(tokens)
    placement = SlotTable(count, count).place(range(count), range(-1, count - 1), range(count))
    placed = PlacedSegment(0, placement, tokens=tokens, pick_rows=range(count))
    found: tuple[int, ...] = ()
    for stage in stages:
        stage.open(Open(0, 1, count))
        done = stage.run([placed])
        assert done is not None
        placed = PlacedSegment(0, placement, hidden=done[0].hidden, pick_rows=range(count))
        found = done[0].picks
    return found


def check_text(written: Written, folders: Sequence[Path] = ()) -> None:
    """What transformers writes with these weights, is written with those from the file, or from
    the folders of its stages."""
    folder = resolved(written)
    prompt = [1, 5, 9, 5, 300]
    text = list(prompt)
    while len(text) < 20:
        text.append(int(tiny.logits(written.model, text)[-1].argmax()))
    ((new, _),) = plain_reference(folder, [prompt], 15, 128, (), "float32", "cpu")
    assert prompt + new == text
    layers = written.model.config.num_hidden_layers
    cut = [Slice(layer, layer + 1, layers) for layer in range(layers)]
    stages = [load_stage(part) for part in folders] or [load_stage(folder, held) for held in cut]
    assert list(picks(stages, text[:-1])[len(prompt) - 1 :]) == new


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_is_what_the_package_makes_of_it(tmp_path: Path, kind: str) -> None:
    written = llama(tmp_path / "a.gguf", kind)
    check_tensors(written)
    check_text(written)


@pytest.mark.parametrize("kind", BY_256)
def test_types_in_blocks_of_256(tmp_path: Path, kind: str) -> None:
    written = gguf_models.make(tmp_path / "a.gguf", LlamaConfig(**LARGE), kind)
    check_tensors(written)
    check_text(written)


CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "tied": lambda: LlamaConfig(**gguf_models.SIZES | {"tie_word_embeddings": True}),
    "biased": lambda: LlamaConfig(**gguf_models.SIZES, attention_bias=True, mlp_bias=True),
    "wide heads": lambda: LlamaConfig(**gguf_models.SIZES, head_dim=32),
    "qwen2": lambda: Qwen2Config(**gguf_models.SIZES),
    "qwen3": lambda: Qwen3Config(**gguf_models.SIZES, head_dim=32),
}


@pytest.mark.parametrize("family", CONFIGS)
def test_families_write_what_transformers_writes(tmp_path: Path, family: str) -> None:
    written = gguf_models.make(tmp_path / "a.gguf", CONFIGS[family](), "Q8_0")
    check_tensors(written)
    check_text(written)


def test_the_header_is_what_the_package_reads(tmp_path: Path) -> None:
    path = llama(tmp_path / "a.gguf", "Q4_1", flags=[True, False], numbers=[1.5, -2.0]).path
    header, reader = read_header(path), gguf.GGUFReader(path)
    fields = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert header.metadata == fields
    assert {
        name: (tensor.type, tensor.shape, tensor.offset, tensor.nbytes)
        for name, tensor in header.tensors.items()
    } == {
        each.name: (
            each.tensor_type.name,
            tuple(reversed(each.shape.tolist())),
            each.data_offset,
            each.n_bytes,
        )
        for each in reader.tensors
    }


@pytest.mark.parametrize("kind", ["F16", "Q4_0"])
def test_the_fingerprint_is_that_of_the_dequantised_model(tmp_path: Path, kind: str) -> None:
    written = llama(tmp_path / "a.gguf", kind)
    folder = resolved(written)
    checkpoint = Checkpoint(folder)
    for name in checkpoint.names():
        raw = checkpoint.read(name).contiguous().reshape(-1).view(torch.uint8)
        middle = len(raw) // 2
        expected = torch.cat((raw[:SAMPLE], raw[middle : middle + SAMPLE]))
        assert checkpoint.sample(name) == bytes(expected.tolist()), name
    assert fingerprint(folder) == fingerprint(resolved(written))
    again = tmp_path / "b.gguf"
    shutil.copyfile(written.path, again)
    assert fingerprint(models.resolve(str(again))) == fingerprint(folder)
    assert models.resolve(str(again)) != folder


@pytest.mark.parametrize("kind", ["F16", "Q4_0", "Q5_1"])
def test_a_split_holds_the_tensors_as_they_are_stored(tmp_path: Path, kind: str) -> None:
    written = llama(tmp_path / "a.gguf", kind)
    folder = resolved(written)
    manifest = split(folder, parse_layers("0,1", 2), tmp_path / "out")
    parts = [tmp_path / "out" / name for name in ("stage-1", "stage-2", "holder")]
    source = Checkpoint(folder)
    for part in parts:
        checkpoint = Checkpoint(part)
        for name in checkpoint.names():
            assert torch.equal(checkpoint.read(name), source.read(name)), name
            assert checkpoint.info(name).nbytes == source.info(name).nbytes
        assert fingerprint(part) == fingerprint(folder)
    assert Checkpoint(parts[2]).names() == [HEAD, EMBEDDING]
    assert (parts[2] / "tokenizer.json").exists()
    sizes = [entry["bytes"] for entry in manifest["stages"]]
    assert sizes == [(part / "model.gguf").stat().st_size for part in parts[:2]]
    check_text(written, parts[:2])
    moved = tmp_path / "elsewhere"
    shutil.copytree(parts[0], moved)  # as another machine has it: with another time
    os.utime(moved / "model.gguf", ns=(0, 0))
    assert Checkpoint(moved).read(EMBEDDING).shape[1] == 64
    (moved / "model.gguf").write_bytes((moved / "model.gguf").read_bytes()[:-1])
    with pytest.raises(UserError, match=r"model\.gguf was changed"):
        Checkpoint(moved).read(EMBEDDING)


def test_a_split_may_be_dequantised(tmp_path: Path) -> None:
    written = llama(tmp_path / "a.gguf", "Q4_0")
    split(resolved(written), parse_layers("0,1", 2), tmp_path / "out", stored=Stored("float32"))
    parts = [tmp_path / "out" / name for name in ("stage-1", "stage-2")]
    for part in parts:
        stored = load_file(part / "model.safetensors")
        assert all(torch.equal(tensor, written.values[name]) for name, tensor in stored.items())
    check_text(written, parts)


def _reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lists the tensors that are read from now on."""
    read: list[str] = []
    plain = GGUFFile.read

    def noted(self: GGUFFile, name: str) -> torch.Tensor:
        read.append(name)
        return plain(self, name)

    monkeypatch.setattr(GGUFFile, "read", noted)
    return read


def test_only_its_layers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolved(llama(tmp_path / "a.gguf", "Q4_0"))
    read = _reads(monkeypatch)
    load_stage(folder, Slice(1, 2, 2))
    assert len(read) == len(set(read))
    assert {name.partition(".1.")[0] for name in read} == {
        "model.layers",
        "model.norm.weight",
        HEAD,
    }


def test_an_embedding_that_is_the_head_is_dequantised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = gguf_models.make(tmp_path / "a.gguf", CONFIGS["tied"](), "Q4_0")
    read = _reads(monkeypatch)
    stage = load_stage(resolved(written))
    assert read.count(EMBEDDING) == 1
    smaller = load_stage(resolved(written), dtype="bfloat16")
    rows = Checkpoint(resolved(written)).info(EMBEDDING).nbytes  # for tokens, as they are stored
    assert smaller.memory - rows <= (stage.memory - rows) / 2
