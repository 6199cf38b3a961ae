"""Which of the files and tensors of a folder count: those that transformers takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from gardener.errors import UserError
from gardener.evaluation.transformers_model import load_transformers
from gardener.model.checkpoint.slices import parse_layers
from gardener.model.checkpoint.split import split
from gardener.model.checkpoint.tensors import Checkpoint, fingerprint
from gardener.model.loader import load_whole
from gardener.stages.load import load_stage

WHOLE = "model.safetensors"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make("llama", tmp_path / "model")
    return tmp_path / "model"


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(folder / WHOLE).items()}


def configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def shard(folder: Path, tensors: dict[str, torch.Tensor], *, pickled: bool = False) -> None:
    """The tensors in two files, with an index."""
    names = sorted(tensors)
    whole = "pytorch_model.bin" if pickled else WHOLE
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"part-{number}{Path(whole).suffix}"
        chosen = {name: tensors[name] for name in part}
        if pickled:
            torch.save(chosen, folder / file)
        else:
            save_file(chosen, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    write_index(folder, f"{whole}.index.json", weight_map)


def write_index(folder: Path, name: str, weight_map: dict[str, str]) -> None:
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def check(folder: Path) -> None:
    """The tensors here are those of the model that transformers loads."""
    build: Any = AutoModelForCausalLM
    model, report = build.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    weights = model.state_dict()
    checkpoint = Checkpoint(folder)
    for name in checkpoint.names():
        assert torch.equal(checkpoint.read(name), weights[name]), name
    whole = load_whole(folder, dtype="float32", device="cpu")
    assert torch.equal(whole.matrix, weights[HEAD])
    assert torch.equal(whole.table, weights[EMBEDDING])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head", ["own", "equal"])
def test_a_head_in_the_checkpoint_is_the_head(folder: Path, tied: bool, head: str) -> None:
    tensors = tensors_of(folder)
    if head == "equal":
        tensors[HEAD] = tensors[EMBEDDING].clone()
        save_file(tensors, folder / WHOLE, metadata={"format": "pt"})
    configure(folder, tie_word_embeddings=tied)
    check(folder)


def test_without_a_head_the_embedding_is_it_if_the_config_says_so(folder: Path) -> None:
    tensors = tensors_of(folder)
    del tensors[HEAD]
    save_file(tensors, folder / WHOLE, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lm_head\.weight is missing .*tie_word_embeddings is f"):
        load_stage(folder)
    configure(folder, tie_word_embeddings=True)
    check(folder)


def test_a_split_keeps_the_head_of_its_own(folder: Path, tmp_path: Path) -> None:
    configure(folder, tie_word_embeddings=True)
    split(folder, parse_layers("0-1,2-3", 4), tmp_path / "out")
    for part in ("stage-2", "holder"):
        checkpoint = Checkpoint(tmp_path / "out" / part)
        assert torch.equal(checkpoint.read(checkpoint.head(True)), tensors_of(folder)[HEAD])


STALE: dict[str, Callable[[Path, dict[str, torch.Tensor]], None]] = {
    "an index whose files are there": lambda folder, old: shard(folder, old),
    "an index whose files are gone": lambda folder, old: write_index(
        folder, f"{WHOLE}.index.json", dict.fromkeys(old, "gone.safetensors")
    ),
    "a pickle": lambda folder, old: torch.save(old, folder / "pytorch_model.bin"),
    "pickles": lambda folder, old: shard(folder, old, pickled=True),
}


@pytest.mark.parametrize("what", STALE)
def test_the_whole_file_comes_first(folder: Path, what: str) -> None:
    before = fingerprint(folder)
    STALE[what](folder, {name: torch.zeros_like(t) for name, t in tensors_of(folder).items()})
    check(folder)
    assert fingerprint(folder) == before


def test_safetensors_in_parts_come_before_pickles(folder: Path) -> None:
    tensors = tensors_of(folder)
    (folder / WHOLE).unlink()
    torch.save(
        {name: torch.zeros_like(t) for name, t in tensors.items()}, folder / "pytorch_model.bin"
    )
    shard(folder, tensors)
    check(folder)
    assert Checkpoint(folder).info(HEAD).file.suffix == ".safetensors"


@pytest.mark.parametrize("odd", ["missing", "unexpected"])
def test_transformers_must_take_all_weights_as_they_are(folder: Path, odd: str) -> None:
    tensors = tensors_of(folder)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)  # of old checkpoints
    save_file(tensors, folder / WHOLE, metadata={"format": "pt"})
    load_transformers(folder, torch.float32)
    name = "model.layers.1.mlp.up_proj.weight"
    if odd == "missing":
        del tensors[name]
    else:
        name = "model.layers.1.mlp.up_proj.scale"
        tensors[name] = torch.ones(1)
    save_file(tensors, folder / WHOLE, metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"not take the weights in .*{odd} keys: {name}"):
        load_transformers(folder, torch.float32)
