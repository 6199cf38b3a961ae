"""`gardener make-random` and the options of `gardener split` that quantise, at tiny sizes."""

import json
import sys
from pathlib import Path
from typing import Final, Literal

import pytest

from gardener.cli.make_random import make_random
from gardener.cli.program import Misuse
from gardener.cli.split import split
from gardener.errors import UserError
from gardener.model.architecture import LAYER_BYTES
from gardener.model.checkpoint.folders import read_json
from gardener.model.checkpoint.quantised import Quantised, quantised
from gardener.model.checkpoint.tensors import HEAD, Checkpoint
from gardener.model.random import shapes
from gardener.model.random.folder import write_folder

LIKE: Final = "llama-3.2-1b"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 300, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    monkeypatch.setattr(shapes, "SHAPES", {LIKE: {**shapes.SHAPES[LIKE], **sizes, **heads}})
    monkeypatch.setattr("gardener.model.random.pool.NUMBERS", 1 << 17)
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))


def test_a_folder_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("gardener.cli.make_random.result", said.append)
    make_random(like=LIKE, layers=3, quant="int8", out=tmp_path / "a", as_json=True)
    assert json.loads(said[0])["bytes"] > 100_000
    assert quantised(tmp_path / "a") == Quantised("int8")
    assert len([name for name in Checkpoint(tmp_path / "a").names() if "up_proj" in name]) == 3
    make_random(like=LIKE, gguf="Q4_0", out=tmp_path / "b.gguf")
    assert (tmp_path / "b.gguf").read_bytes()[:4] == b"GGUF"
    with pytest.raises(Misuse, match="leave --quant and --dtype out"):
        make_random(like=LIKE, gguf="Q4_0", quant="int4", out=tmp_path / "c.gguf")


def test_without_the_package_for_gguf_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.delitem(sys.modules, "gardener.model.random.gguf", raising=False)
    with pytest.raises(UserError, match="need one package more: pip install gguf"):
        make_random(like=LIKE, gguf="Q4_0", out=tmp_path / "a.gguf")


def test_a_split_that_quantises(tmp_path: Path) -> None:
    make_random(like=LIKE, layers=2, out=tmp_path / "a")
    with pytest.raises(Misuse, match="give --quant int4 or int8 too"):
        split(str(tmp_path / "a"), stages=2, group=64, out=tmp_path / "b")
    split(str(tmp_path / "a"), stages=2, quant="int4", group=64, out=tmp_path / "b")
    last = tmp_path / "b" / "stage-2"
    assert quantised(last) == Quantised("int4", 64, "int8")
    weights = Checkpoint(last).grouped(HEAD, "int8")
    assert weights is not None
    assert weights.bits == 8
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["quantised"] == {"quant": "int4", "group": 64, "quant_head": "int8"}


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "F16"])
def test_a_split_tells_of_layers_that_stay_in_other_bits(
    tmp_path: Path, kind: Literal["Q4_0", "Q8_0", "F16"], capsys: pytest.CaptureFixture[str]
) -> None:
    make_random(like=LIKE, gguf=kind, out=tmp_path / "a.gguf", layers=2)
    split(str(tmp_path / "a.gguf"), stages=2, quant="int8", out=tmp_path / "b")
    assert (
        "is quantised in 4 bits already, and stays so: --quant int8" in capsys.readouterr().err
    ) == (kind == "Q4_0")


def test_a_split_that_quantises_is_balanced_by_the_kind_of_its_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 8 bits it takes as long as 4 layers here, in floats as 7.1; so it does if the source is
    stored so."""
    wide = {**shapes.SHAPES[LIKE], "vocab_size": 2304}
    monkeypatch.setattr(shapes, "SHAPES", {LIKE: wide})
    monkeypatch.setitem(LAYER_BYTES, "int8", 0.0)
    make_random(like=LIKE, out=tmp_path / "a")
    stored = Quantised("int8", quant_head="none")
    write_folder(shapes.config_like(LIKE, None), tmp_path / "b", dtype="float32", quantised=stored)
    split(str(tmp_path / "a"), stages=2, quant="int8", out=tmp_path / "c")
    split(str(tmp_path / "a"), stages=2, quant="int8", quant_head="none", out=tmp_path / "d")
    split(str(tmp_path / "b"), stages=2, out=tmp_path / "e")
    cuts = [read_json(tmp_path / out / "manifest.json")["stages"][0]["layers"] for out in "cde"]
    assert cuts == ["0-9", "0-11", "0-11"]
