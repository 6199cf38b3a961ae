"""`gardener split --quant`: folders whose weights are what quantising the source gives."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf_models
import pytest
import tiny
import torch
from gguf import GGMLQuantizationType
from real_stages import decoded
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from gardener.draft.shipped import TARGET, head_for, heads
from gardener.errors import LocalError, UserError
from gardener.model.checkpoint import resolve as models
from gardener.model.checkpoint.folders import read_json
from gardener.model.checkpoint.quantised import (
    Quantised,
    agreed_head,
    agreed_quant,
    quantised,
    stored_quant,
)
from gardener.model.checkpoint.safetensors_writer import Entry, SafetensorsWriter
from gardener.model.checkpoint.slices import parse_layers
from gardener.model.checkpoint.split import Stored, split
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD, Checkpoint, fingerprint
from gardener.model.kernels.grouped import Grouped
from gardener.model.kernels.rounding import rounded
from gardener.model.loader import stored_slice
from gardener.protocol.cards import same_model
from gardener.stages.load import load_stage

CUT = parse_layers("0-1,2-3", 4)
SIZES = {"hidden_size": 64, "intermediate_size": 96}


@pytest.fixture(params=["llama", "smollm"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    tiny.make(request.param, tmp_path / "model", **SIZES)
    return tmp_path / "model"


def same(one: Grouped | None, other: Grouped | None) -> bool:
    assert one is not None
    assert other is not None
    pairs = [(getattr(one, n), getattr(other, n)) for n in ("steps", "scales", "zeros", "minima")]
    return (one.bits, one.group) == (other.bits, other.group) and all(
        a is b is None or torch.equal(a, b) for a, b in pairs
    )


def contents(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and notes of a file, which may be overwritten then."""
    with safe_open(file, "pt") as handle:
        metadata = handle.metadata()
    return {name: tensor.clone() for name, tensor in load_file(file).items()}, metadata


def linear(name: str) -> bool:
    return name.endswith("_proj.weight")


@pytest.mark.parametrize("how", [Quantised("int4"), Quantised("int8", 32, "int4")])
def test_stages_hold_what_rounding_the_source_gives(
    folder: Path, tmp_path: Path, how: Quantised
) -> None:
    split(folder, CUT, tmp_path / "out", stored=Stored(quantised=how))
    source = load_file(folder / "model.safetensors")
    tied = HEAD not in source
    bits = {"int4": 4, "int8": 8}
    for number, held in enumerate(CUT, 1):
        part = Checkpoint(tmp_path / "out" / f"stage-{number}")
        due = {name for name in source if held.holds(name, tied=False)}
        assert set(part.names()) == due | ({HEAD} if held.is_last else set())
        for name in due - {HEAD}:
            if linear(name):
                assert same(
                    part.grouped(name, how.quant), rounded(source[name], bits[how.quant], 32)
                )
            else:
                assert part.grouped(name, how.quant) is None
                assert torch.equal(part.read(name), source[name])
        assert quantised(part.folder) == how
        assert stored_slice(part.folder) == held
    matrix = rounded(source[EMBEDDING if tied else HEAD], bits[how.quant_head], 32)
    assert same(part.grouped(HEAD, how.quant_head, (61, 64)), matrix)
    assert torch.equal(part.read(HEAD), matrix.widened())
    assert part.info(HEAD).shape == (61, 64)
    holder = load_file(tmp_path / "out" / "holder" / "model.safetensors")
    assert all(torch.equal(tensor, source[name]) for name, tensor in holder.items())


def test_a_stage_with_both_ends_keeps_the_embedding_in_floats(tmp_path: Path) -> None:
    tiny.make("smollm", tmp_path / "model", **SIZES)
    split(
        tmp_path / "model",
        parse_layers("0-3", 4),
        tmp_path / "out",
        stored=Stored(quantised=Quantised("int4", 64, "none")),
    )
    part = Checkpoint(tmp_path / "out" / "stage-1")
    assert EMBEDDING in part.names()
    assert HEAD not in part.names()
    assert part.grouped(EMBEDDING, "int4") is None
    weights = part.grouped("model.layers.0.mlp.up_proj.weight", "int4")
    assert weights is not None
    assert weights.group == 64
    weights = part.grouped("model.layers.0.mlp.down_proj.weight", "int4")  # of 96 inputs
    assert weights is not None
    assert weights.group == 32
    split(
        tmp_path / "model",
        parse_layers("0-3", 4),
        tmp_path / "again",
        stored=Stored(quantised=Quantised("int4")),
    )
    part = Checkpoint(tmp_path / "again" / "stage-1")
    assert part.grouped(EMBEDDING, "int8") is None
    assert part.grouped(HEAD, "int8") is not None


@pytest.mark.parametrize("quant", ["int4", "int8"])
@pytest.mark.parametrize("head", ["auto", "none", "int4"])
def test_a_split_writes_what_quantising_at_the_start_writes(
    folder: Path, tmp_path: Path, quant: Any, head: Any
) -> None:
    how = Quantised(quant) if head == "auto" else Quantised(quant, 32, head)
    split(folder, CUT, tmp_path / "out", stored=Stored(quantised=how))
    parts = [load_stage(tmp_path / "out" / f"stage-{number}") for number in (1, 2)]
    whole = [load_stage(folder, quant=quant, quant_head=head)]
    assert {part.quant for part in parts} == {quant}
    assert decoded(parts, [7, 1, 40, 3], 16) == decoded(whole, [7, 1, 40, 3], 16)
    assert sum(part.memory for part in parts) <= whole[0].memory * 1.01


def test_the_fingerprint_says_how_it_is_quantised(folder: Path, tmp_path: Path) -> None:
    split(folder, CUT, tmp_path / "out", stored=Stored(quantised=Quantised("int4", 64)))
    marks = {fingerprint(tmp_path / "out" / name) for name in ("holder", "stage-1", "stage-2")}
    assert marks == {f"int4-64-int8-{fingerprint(folder)}"}
    assert not same_model(marks.pop(), fingerprint(folder))


def test_a_shipped_head_is_for_the_quantised_model_too() -> None:
    shipped = next(iter(heads()))
    target = read_json(shipped / "config.json")[TARGET]
    assert head_for(target) == head_for(f"int4-32-int8-{target}") == shipped
    assert head_for(f"bfloat16-{target}") is None


def test_the_folder_decides_and_contradictions_are_told(folder: Path, tmp_path: Path) -> None:
    split(folder, CUT, tmp_path / "out", stored=Stored(quantised=Quantised("int4")))
    part = tmp_path / "out" / "stage-1"
    assert stored_quant(part) == "int4"
    assert stored_quant(folder) is None
    assert [agreed_quant(part, asked) for asked in ("none", "auto", "int4")] == ["int4"] * 3
    assert [agreed_quant(folder, asked) for asked in ("none", "int8")] == ["none", "int8"]
    for asked in ("nf4", "int8"):
        with pytest.raises(UserError, match=f"is stored in int4, which cannot become {asked}"):
            agreed_quant(part, asked)
    assert [agreed_head(part, asked) for asked in ("auto", "int8")] == ["int8"] * 2
    assert [agreed_head(folder, asked) for asked in ("auto", "none")] == ["auto", "none"]
    for asked in ("none", "int4"):
        with pytest.raises(UserError, match=f"head in int8, which cannot become {asked}: leave --"):
            load_stage(part, quant_head=asked)
    config = read_json(part / "config.json")
    config["gardener"]["quant"] = "int3"
    (part / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"config\.json: gardener is .*write the folder anew"):
        stored_quant(part)
    config["gardener"] |= {"quant": "int4", "group": 48}
    (part / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"group is 48, not one of 16, 32, 64, 128, 256.*anew"):
        stored_quant(part)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_1", "Q8_0", "F16", "IQ4_NL"])
def test_what_a_gguf_file_has_goes_in_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    stored = "Q8_0" if kind == "IQ4_NL" else kind
    config = LlamaConfig(**gguf_models.SIZES | {"tie_word_embeddings": kind == "Q5_1"})
    written = gguf_models.make(tmp_path / "a.gguf", config, stored)
    if kind == "IQ4_NL":  # which the package cannot write, and whose steps are no numbers
        for name, (raw, _) in written.tensors.items():
            if name.startswith("blk") and raw.dtype == "uint8":
                bytes_of = raw.reshape(len(raw), -1, 34)[:, :, :18].reshape(len(raw), -1)
                written.tensors[name] = bytes_of, GGMLQuantizationType.IQ4_NL
        gguf_models.write(written.path, written.metadata, written.tensors)
    source = Checkpoint(models.resolve(str(written.path)))
    out = tmp_path / "out"
    split(source.folder, parse_layers("0,1", 2), out, stored=Stored(quantised=Quantised("int4")))
    for number in (1, 2):
        part = Checkpoint(out / f"stage-{number}")
        for name in part.names():
            at = EMBEDDING if name == HEAD and not source.has(HEAD) else name
            quant = "int8" if name == HEAD else "int4"
            due = source.grouped(at, quant)
            if due is None and (linear(name) or name == HEAD):
                due = rounded(source.read(at), 8 if name == HEAD else 4, 32)
            if due is None:
                assert torch.equal(part.read(name), source.read(at))
            else:
                assert same(part.grouped(name, quant), due), name
                assert torch.equal(part.read(name), due.widened())
    parts = [load_stage(out / f"stage-{number}") for number in (1, 2)]
    tokens = [5, 0, 9]
    whole = load_stage(source.folder, quant="int4")
    assert decoded(parts, tokens, 8) == decoded([whole], tokens, 8)
    rows = Checkpoint(out / "stage-1").table(EMBEDDING, source.info(EMBEDDING).shape)  # type: ignore[arg-type]
    ids = torch.tensor([3, 0, 3])
    assert torch.equal(rows.rows(ids), source.read(EMBEDDING)[ids])
    assert (out / "holder" / "model.gguf").exists()


def test_parts_that_make_no_sense_are_named(folder: Path, tmp_path: Path) -> None:
    split(folder, CUT, tmp_path / "out", stored=Stored(quantised=Quantised("int4")))
    file = tmp_path / "out" / "stage-1" / "model.safetensors"
    up = "model.layers.0.mlp.up_proj.weight"
    tensors, metadata = contents(file)
    for change, what in (
        ({f"{up}.scales": torch.ones(96, 3)}, "groups of 21, not of 16"),
        ({f"{up}.scales": torch.ones(96, 8)}, "groups of 8, not of 16"),
        ({f"{up}.scales": torch.ones(96, 0)}, r"\(96, 1\) are due"),
        ({f"{up}.scales": torch.ones(95, 2)}, "is not quantised as it should be"),
        ({f"{up}.zeros": torch.ones(96, 2)}, r"its zeros are float32 \[96, 2\]"),
        ({f"{up}.scales": torch.full((96, 2), torch.inf)}, "holds values that are not numbers"),
    ):
        save_file(tensors | change, file, metadata)
        with pytest.raises(UserError, match=f"{up}.*{what}"):
            Checkpoint(file.parent).grouped(up, "int4")


@pytest.mark.parametrize("head", ["int4", "int8"])
def test_a_part_that_was_lost_or_added_is_refused(folder: Path, tmp_path: Path, head: Any) -> None:
    split(folder, CUT, tmp_path / "out", stored=Stored(quantised=Quantised("int4", 32, head)))
    stage = tmp_path / "out" / "stage-2"
    file = stage / "model.safetensors"
    tensors, metadata = contents(file)
    scales, zeros = f"{HEAD}.scales", f"{HEAD}.zeros"
    assert metadata[HEAD] == f"{head[-1]} scales zeros"
    minima = {f"{HEAD}.minima": tensors[scales].clone()}
    for changed, there in (
        ({n: t for n, t in tensors.items() if n != scales}, "steps, zeros"),
        ({n: t for n, t in tensors.items() if n != zeros}, "steps, scales"),
        ({n: t for n, t in tensors.items() if HEAD not in n}, "nothing"),
        (tensors | minima, "steps, scales, zeros, minima"),
    ):
        save_file(changed, file, metadata)
        with pytest.raises(UserError, match=f"{HEAD} in .* and there is: {there}: split the model"):
            load_stage(stage)
    save_file({n: t for n, t in tensors.items() if not n.startswith(f"{HEAD}.")}, file)
    with pytest.raises(UserError, match=f"{HEAD} holds uint8, which are no weights"):
        Checkpoint(stage).read(HEAD)
    with pytest.raises(UserError, match=f"{HEAD} holds uint8, which are no weights"):
        Checkpoint(stage).table(HEAD, tuple(tensors[HEAD].shape))  # type: ignore[arg-type]


def test_a_config_that_says_otherwise_than_the_weights_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    split(folder, CUT, tmp_path / "out", stored=Stored(quantised=Quantised("int4")))
    file = tmp_path / "out" / "stage-1" / "config.json"
    config = read_json(file)
    block = config["gardener"]
    bare = {key: value for key, value in block.items() if key not in ("quant", "group")}
    for changed, said in (
        (block | {"quant": "int8"}, "int8-32-int8"),
        (block | {"quant_head": "int4"}, "int4-32-int4"),
        (bare, "nothing of it"),
    ):
        file.write_text(json.dumps(config | {"gardener": changed}))
        with pytest.raises(UserError, match=f"are stored as int4-32-int8, and .* says {said}: spl"):
            load_stage(file.parent)
    whole = read_json(folder / "config.json") | {"gardener": {"quant": "int4"}}
    (folder / "config.json").write_text(json.dumps(whole))
    with pytest.raises(
        UserError, match=r"are stored as floats, and config\.json says int4-32-int8"
    ):
        split(folder, CUT, tmp_path / "again")


def test_zero_points_that_no_step_has_are_refused(folder: Path, tmp_path: Path) -> None:
    split(folder, CUT, tmp_path / "out", stored=Stored(quantised=Quantised("int4")))
    file = tmp_path / "out" / "stage-1" / "model.safetensors"
    tensors, metadata = contents(file)
    zeros = "model.layers.0.mlp.up_proj.weight.zeros"
    tensors[zeros][3, 1] = 16
    save_file(tensors, file, metadata)
    with pytest.raises(UserError, match=r"up_proj.*a zero point is 16, and its steps end at 15"):
        load_stage(file.parent)


def test_a_file_is_what_the_library_writes(tmp_path: Path) -> None:
    tensors = {
        "odd": torch.arange(7, dtype=torch.uint8).reshape(7, 1),
        "rows": torch.randn(5, 3).bfloat16(),
        "one": torch.tensor(4.5),
        "wide": torch.arange(3),
    }
    entries = {name: Entry(each.dtype, tuple(each.shape)) for name, each in tensors.items()}
    with SafetensorsWriter(tmp_path / "a", entries, {"x": "y"}) as writer:
        for name in ("odd", "wide", "one"):
            writer.write(name, tensors[name])
        writer.write("rows", tensors["rows"][3:], 3)
        writer.write("rows", tensors["rows"][:3])
    found = load_file(tmp_path / "a")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], each) for name, each in tensors.items())
    writer = SafetensorsWriter(tmp_path / "b", entries, {})
    with pytest.raises(LocalError, match="announced as"):
        writer.write("rows", tensors["rows"], 1)
    writer.write("wide", tensors["wide"])
    with pytest.raises(LocalError, match="41 bytes"):
        writer.__exit__(None, None, None)


_PEAK = """
import resource, sys
from pathlib import Path
from gardener.model.checkpoint.quantised import Quantised
from gardener.model.checkpoint.slices import parse_layers
from gardener.model.checkpoint.split import Stored, split
cut, stored = parse_layers("0-8", 9), Stored("bfloat16", Quantised("int4"))
split(Path(sys.argv[1]), cut, Path(sys.argv[1] + "-out"), stored=stored)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
split(Path(sys.argv[2]), cut, Path(sys.argv[2] + "-out"), stored=stored)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted otherwise elsewhere")
def test_hardly_more_than_a_tensor_is_in_memory(tmp_path: Path) -> None:
    """The model has 150 MB in 9 layers, its largest matrix 4 MB."""
    tiny.make("llama", tmp_path / "small", num_hidden_layers=9, **SIZES)
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 9}
    tiny.make("llama", tmp_path / "large", **sizes)
    names = (str(tmp_path / "small"), str(tmp_path / "large"))
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *names], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 45e6
