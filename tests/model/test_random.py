"""Random models: shapes that are real, weights that are the same in whatever they are stored in,
and a tokenizer for any text."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from real_stages import decoded
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from gardener.errors import UserError
from gardener.evaluation.transformers_model import load_transformers
from gardener.holder.prompter import Prompter
from gardener.model.architecture import Architecture
from gardener.model.checkpoint import resolve as models
from gardener.model.checkpoint.quantised import Quantised, unquantised
from gardener.model.checkpoint.slices import Slice, parse_layers
from gardener.model.checkpoint.split import Stored, split
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD, Checkpoint, fingerprint
from gardener.model.kernels.grouped import Grouped
from gardener.model.kernels.rounding import rounded
from gardener.model.loader import load_whole
from gardener.model.random.folder import write_folder
from gardener.model.random.gguf import write_gguf
from gardener.model.random.pool import Pool
from gardener.model.random.shapes import SHAPES, config_like, matrices
from gardener.model.random.tokenizer import tokens_for
from gardener.stages.load import load_stage

TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 300}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gardener.model.random.pool.NUMBERS", 1 << 17)


def config(like: str) -> dict[str, Any]:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    return config_like(like, None) | TINY | heads


@pytest.mark.parametrize("like", list(SHAPES))
def test_shapes_are_those_of_the_models(tmp_path: Path, like: str) -> None:
    weights = {
        "llama-2-7b": 6_738_415_616,
        "llama-2-13b": 13_015_864_320,
        "llama-3.1-8b": 8_030_261_248,
        "llama-3.2-1b": 1_235_814_400,
    }
    shape = config_like(like, None)
    norms = shape["hidden_size"] * (2 * shape["num_hidden_layers"] + 1)
    assert sum(math.prod(size) for _, size, _ in matrices(shape)) + norms == weights[like]
    (tmp_path / "config.json").write_text(json.dumps(shape))
    assert Architecture.read(tmp_path).layers == shape["num_hidden_layers"]
    assert config_like(like, 3)["num_hidden_layers"] == 3
    with pytest.raises(UserError, match="--layers is 99"):
        config_like(like, 99)


@pytest.mark.parametrize("like", ["llama-2-7b", "llama-3.2-1b"])
def test_a_random_model_can_be_run(tmp_path: Path, like: str) -> None:
    write_folder(config(like), tmp_path / "model", dtype="float32")
    stages = [load_stage(tmp_path / "model", part) for part in (Slice(0, 1, 2), Slice(1, 2, 2))]
    text = decoded(stages, [72, 105], 12)
    assert len(set(text)) > 3  # logits that say nothing would all pick the same
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    for name, shape, std in matrices(config(like)):
        assert tensors[name].shape == shape
        assert abs(tensors[name].std().item() / std - 1) < 0.1
        assert len({row.numpy().tobytes() for row in tensors[name]}) == shape[0]
    layers = [tensors[f"model.layers.{n}.mlp.up_proj.weight"] for n in (0, 1)]
    assert not torch.equal(*layers)
    with pytest.raises(UserError, match="is not empty"):
        write_folder(config(like), tmp_path / "model")


def test_the_seed_makes_the_model(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_folder(config("llama-2-7b"), tmp_path / name, seed=seed)
    marks = [fingerprint(tmp_path / name) for name in "abc"]
    assert marks[0] == marks[1] != marks[2]


def as_near(weights: Grouped, values: torch.Tensor, bits: int) -> bool:
    """Whether these are the values, rounded to so many bits, but for the order of sums."""
    due = rounded(values, bits, 32)
    one, other = ((each.widened() - values).square().sum().item() for each in (weights, due))
    return (weights.bits, weights.group) == (bits, 32) and math.isclose(one, other, rel_tol=1e-3)


@pytest.mark.parametrize("like", ["llama-2-7b", "llama-3.2-1b"])
def test_a_quantised_one_is_the_rounded_one(tmp_path: Path, like: str) -> None:
    how = Quantised("int4")
    write_folder(config(like), tmp_path / "plain", dtype="float32")
    write_folder(config(like), tmp_path / "model", dtype="float32", quantised=how)
    plain, found = Checkpoint(tmp_path / "plain"), Checkpoint(tmp_path / "model")
    assert set(found.names()) == {*plain.names(), HEAD}
    for name, shape, _ in matrices(config(like)):
        bits = 8 if name == HEAD else 4
        weights = found.grouped(name, "int4", shape)
        if name == EMBEDDING:
            assert weights is None
            assert torch.equal(found.read(name), plain.read(name))
        else:
            assert weights is not None
            assert as_near(weights, plain.read(name), bits), name
    head, weights = plain.read(plain.head(like == "llama-3.2-1b")), found.grouped(HEAD, "int8")
    assert weights is not None
    assert as_near(weights, head, 8)
    assert fingerprint(tmp_path / "model").startswith("int4-32-int8-")
    whole = load_whole(tmp_path / "model", dtype="float32", device="cpu")
    assert torch.equal(whole.matrix, found.read(HEAD))
    theirs = load_transformers(tmp_path / "model", torch.float32)
    assert torch.equal(theirs.lm_head.weight, found.read(HEAD))
    assert torch.equal(theirs.model.embed_tokens.weight, found.read(EMBEDDING))
    up = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(theirs.state_dict()[up], found.read(up))


def test_a_quantised_model_is_split_as_it_is(tmp_path: Path) -> None:
    how = Quantised("int4", 32, "int4")
    write_folder(config("llama-3.2-1b"), tmp_path / "model", quantised=how)
    cut = parse_layers("0,1", 2)
    manifest = split(tmp_path / "model", cut, tmp_path / "out")
    assert manifest["quantised"] == {"quant": "int4", "group": 32, "quant_head": "int4"}
    source = Checkpoint(tmp_path / "model")
    for part in ("stage-1", "stage-2", "holder"):
        found = Checkpoint(tmp_path / "out" / part)
        assert fingerprint(found.folder) == fingerprint(tmp_path / "model")
        assert (HEAD in found.names()) == (part != "stage-1")
        assert (EMBEDDING in found.names()) == (part != "stage-2")
        for name in found.names():
            one, other = found.grouped(name, "int4"), source.grouped(name, "int4")
            assert (one is None) == (other is None)
            assert torch.equal(found.read(name), source.read(name)), name
    same = split(tmp_path / "model", cut, tmp_path / "same", stored=Stored(quantised=how))
    assert same["fingerprint"] == manifest["fingerprint"] == fingerprint(source.folder)
    wide = split(tmp_path / "model", cut, tmp_path / "wide", stored=Stored("float32"))
    assert wide["fingerprint"] == f"{how.mark}float32-{unquantised(fingerprint(source.folder))}"
    wrong = Stored(quantised=Quantised("int8"))
    with pytest.raises(UserError, match="in int4, in groups of 32, with the head in int4: leave"):
        split(tmp_path / "model", cut, tmp_path / "other", stored=wrong)


@pytest.mark.parametrize("like", ["llama-2-7b", "llama-3.1-8b", "llama-3.2-1b"])
def test_a_gguf_file_is_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, like: str
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    write_folder(config(like), tmp_path / "model", dtype="float32")
    write_gguf(config(like), tmp_path / "model.gguf", "Q8_0")
    folder = models.resolve(str(tmp_path / "model.gguf"))
    plain, found = Checkpoint(tmp_path / "model"), Checkpoint(folder)
    assert found.names() == plain.names()
    for name in plain.names():
        worst = (found.read(name) - plain.read(name)).abs().max().item()
        assert worst <= plain.read(name).abs().max().item() / 200, name
    text = [decoded([load_stage(each)], [72, 105], 3) for each in (folder, tmp_path / "model")]
    assert text[0] == text[1]
    for prompt in ("Grüße,  a ring\n", "x <|end|>"):
        ids = [
            Tokenizer.from_file(str(f / "tokenizer.json")).encode(prompt).ids
            for f in (folder, tmp_path / "model")
        ]
        assert ids[0] == ids[1]
    with pytest.raises(UserError, match="is there already"):
        write_gguf(config(like), tmp_path / "model.gguf", "Q8_0")


def test_any_text_can_be_read_and_any_token_be_shown(tmp_path: Path) -> None:
    write_folder(config("llama-2-7b"), tmp_path / "model")
    build: Any = AutoTokenizer
    tokenizer = build.from_pretrained(tmp_path / "model")
    text = "Grüße,  a ring\nof 🙂"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.decode([299, 72]) == " 299" + tokenizer.decode([72])
    assert len(set(tokens_for(300))) == len(tokenizer) == 300
    assert Prompter(tmp_path / "model").eos == {257}


def test_rows_that_do_not_fit_are_refused() -> None:
    pool = Pool(1.0, 32, 0, lambda numbers: {"": numbers})
    with pytest.raises(ValueError, match="for groups of 32"):
        next(pool.cut("a", (2, 33)))
    with pytest.raises(ValueError, match="for groups of 32"):
        next(pool.cut("a", (1 << 17, 32)))
