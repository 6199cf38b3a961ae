"""GGUF files: the tensors that the `gguf` package makes of them, and the text of transformers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import gguf_models
import pytest
import tiny
import torch
from gguf_models import Written
from transformers import (
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from gardener.evaluation.reference import plain_reference
from gardener.model.checkpoint import resolve as models
from gardener.model.checkpoint.gguf_header import read_header
from gardener.model.checkpoint.tensors import Checkpoint, fingerprint
from gardener.model.checkpoint.weight_files import SAMPLE
from gardener.model.loader import load_whole

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
BY_256 = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
LARGE = SIZES | {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def llama(path: Path, kind: str = "Q8_0", **metadata: Any) -> Written:
    return gguf_models.make(path, LlamaConfig(**SIZES), kind, **metadata)


def resolved(written: Written) -> Path:
    return models.resolve(str(written.path))


def check_tensors(written: Written) -> None:
    """Bit for bit."""
    checkpoint = Checkpoint(resolved(written))
    assert checkpoint.names() == sorted(written.values)
    for name, value in written.values.items():
        found = checkpoint.read(name, tuple(value.shape))
        assert torch.equal(found.float(), value), name


def check_text(written: Written) -> None:
    """What transformers writes with these weights, is written with those from the file."""
    folder = resolved(written)
    prompt = [1, 5, 9, 5, 300]
    ((found, _),) = plain_reference(folder, [prompt], 12, 128, (), "float32", "cpu")
    text = list(prompt)
    for token in found:
        assert token == int(tiny.logits(written.model, text)[-1].argmax())
        text.append(token)
    whole = load_whole(folder, dtype="float32", device="cpu")
    assert whole.architecture.vocab == written.model.config.vocab_size


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
    "tied": lambda: LlamaConfig(**SIZES | {"tie_word_embeddings": True}),
    "biased": lambda: LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "wide heads": lambda: LlamaConfig(**SIZES, head_dim=32),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=32),
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
