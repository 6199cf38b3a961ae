"""Reading checkpoints in all their forms, fingerprints, ranges of layers, even cuts."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.slices import Slice, even_cut, parse_layers, parse_range
from gardener.model.checkpoint.tensors import Checkpoint, fingerprint, needed
from gardener.model.families import Mixture
from gardener.model.kv_slots import SlotTable
from gardener.protocol.cards import same_model
from gardener.protocol.messages import Open
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make("llama", tmp_path / "model")
    return tmp_path / "model"


def _rewrite(folder: Path, form: str) -> None:
    """The same weights in another form."""
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    file.unlink()
    if form == "no prefix":
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        tensors["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        save_file(tensors, file)
    elif form == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif form == "old bin":
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    else:
        kind = "pytorch_model" if form == "bin shards" else "model"
        suffix = "bin" if form == "bin shards" else "safetensors"
        weight_map: dict[str, str] = {}
        for number, part in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
            name = f"{kind}-{number}-of-2.{suffix}"
            chosen = {key: tensors[key] for key in part}
            (torch.save if suffix == "bin" else save_file)(chosen, folder / name)
            weight_map |= dict.fromkeys(part, name)
        index = folder / f"{kind}.{suffix}.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}))


def _picks(folder: Path) -> tuple[int, ...]:
    stage = load_stage(folder)
    stage.open(Open(0, 1, 1))
    placement = SlotTable(9, 20).place(range(9), range(-1, 8), range(9))
    done = stage.run([PlacedSegment(0, placement, tokens=range(9), pick_rows=range(9))])
    assert done is not None
    return done[0].picks


@pytest.mark.parametrize("form", ["no prefix", "bin", "old bin", "shards", "bin shards"])
def test_every_form_of_a_checkpoint_is_the_same_model(folder: Path, form: str) -> None:
    picks, mark = _picks(folder), fingerprint(folder)
    _rewrite(folder, form)
    assert _picks(folder) == picks
    assert fingerprint(folder) == mark


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_a_pointer_of_git_lfs_is_called_one(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4653812736\n"
    )
    with pytest.raises(UserError) as caught:
        load_stage(folder)
    assert str(caught.value) == (
        f"{folder / name} is a git-lfs pointer, not the file of 4654 MB that it stands for: run "
        f"`git lfs pull` in {folder}, or download that file"
    )


def test_a_pickle_with_code_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": os.getcwd}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read"):
        load_stage(folder)


def test_only_the_files_of_a_slice_are_opened(folder: Path) -> None:
    _rewrite(folder, "shards")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    moved = {name: "one" if ".layers.0." in name or "embed" in name else "two" for name in index}
    assert needed(moved, Slice(0, 1, 4), tied=False) == {"one"}
    assert needed(moved, Slice(1, 4, 4), tied=False) == {"two"}
    assert needed(moved, Slice(1, 4, 4), tied=True) == {"two"}  # it has a head of its own
    shared = {name: part for name, part in moved.items() if name != "lm_head.weight"}
    assert needed(shared, Slice(1, 4, 4), tied=True) == {"one", "two"}
    tensors: dict[str, torch.Tensor] = {}
    for file in set(index.values()):
        tensors |= load_file(folder / file)
    for part in ("one", "two"):
        chosen = {name: tensors[name] for name, file in moved.items() if file == part}
        save_file(chosen, folder / part)
    renamed = {name: f"{file}.safetensors" for name, file in moved.items()}
    for part in ("one", "two"):
        (folder / part).rename(folder / f"{part}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": renamed}))
    whole = fingerprint(folder)
    (folder / "one.safetensors").unlink()
    assert load_stage(folder, Slice(2, 4, 4)).slice == Slice(2, 4, 4)
    partial = fingerprint(folder)
    assert partial.endswith(":")
    assert same_model(partial, whole)
    with pytest.raises(UserError, match=r"one\.safetensors"):
        load_stage(folder, Slice(0, 2, 4))


def test_fingerprints_tell_models_apart(tmp_path: Path, folder: Path) -> None:
    tiny.make("llama", tmp_path / "other", seed=1)
    tiny.make("llama", tmp_path / "deeper", num_hidden_layers=5)
    one, other = fingerprint(folder), fingerprint(tmp_path / "other")
    assert one.split(":")[0] == other.split(":")[0]
    assert not same_model(one, other)
    assert not same_model(one, fingerprint(tmp_path / "deeper"))


@pytest.mark.parametrize("carried", [5, "x", [1], {"stage": 0}, {"fingerprint": 5}])
def test_a_folder_that_carries_no_fingerprint_is_named(folder: Path, carried: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"gardener": carried}))
    with pytest.raises(UserError, match=r"config\.json: gardener is .*: split the model anew"):
        fingerprint(folder)


def test_what_is_missing_or_wrong_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    down = tensors.pop("model.layers.2.mlp.down_proj.weight")
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"model\.layers\.2\.mlp\.down_proj\.weight is missing"):
        load_stage(folder)
    load_stage(folder, Slice(3, 4, 4))
    save_file(tensors | {"model.layers.2.mlp.down_proj.weight": down[:5].clone()}, file)
    with pytest.raises(UserError, match=r"has shape \(5, 48\), config.json says \(32, 48\)"):
        load_stage(folder)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        load_stage(folder)
    file.unlink()
    with pytest.raises(UserError, match="there are no weights in"):
        load_stage(folder)


def test_an_index_cannot_point_elsewhere(folder: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "../secret.safetensors"}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="outside"):
        Checkpoint(folder)


def test_sizes_are_known_without_reading(folder: Path) -> None:
    info = Checkpoint(folder).info("model.embed_tokens.weight")
    assert (info.shape, info.nbytes) == ((61, 32), 61 * 32 * 4)


def test_people_write_ranges() -> None:
    assert parse_layers("0-9,10-19,20-29", 30) == [
        Slice(0, 10, 30), Slice(10, 20, 30), Slice(20, 30, 30)
    ]  # fmt: skip
    assert parse_layers("0, 1-2", 3, 2) == [Slice(0, 1, 3), Slice(1, 3, 3)]
    assert parse_range("7", 8) == Slice(7, 8, 8)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0-17,20-29", "layers 18-19 are missing"),
        ("0-18,20-29", "layer 19 is missing"),
        ("1-29", "layer 0 is missing"),
        ("0-27", "layers 28-29 are missing"),
        ("0-19,10-29", "layers 10-19 are given twice"),
        ("0-29,5", "layer 5 is given twice"),
        ("0-30", "there is no layer 30: the model has layers 0-29"),
        ("9-0,10-29", "ends before it begins"),
        ("0-29,", "no range of layers"),
        ("a-b", "no range of layers"),
        ("0-9,10-29", "names 2 ranges but --stages is 3"),
    ],
)
def test_ranges_that_do_not_cover_the_model(text: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        parse_layers(text, 30, 3 if "names" in what else None)


def test_an_even_cut_is_the_best_of_all_cuts() -> None:
    chance = random.Random(0)
    for _ in range(60):
        layers = chance.randint(1, 9)
        stages = chance.randint(1, layers)
        costs, head = [chance.randint(1, 30) for _ in range(layers)], chance.randint(0, 90)

        def slowest(cut: list[Slice], costs: list[int] = costs, head: int = head) -> int:
            return max(sum(costs[s.first : s.end]) + (head if s.is_last else 0) for s in cut)

        found = even_cut(costs, head, stages)
        assert [s.first for s in found] == [0, *[s.end for s in found[:-1]]]
        assert (len(found), found[-1].end) == (stages, layers)
        every = (
            [Slice(a, b, layers) for a, b in zip((0, *ends), (*ends, layers), strict=True)]
            for ends in combinations(range(1, layers), stages - 1)
        )
        assert slowest(found) == min(map(slowest, every))
    with pytest.raises(UserError, match="cannot be cut into 5 stages"):
        even_cut([1] * 4, 1, 5)


def test_the_head_counts_when_layers_are_shared_out(folder: Path) -> None:
    shape = Architecture.read(folder)
    assert [s.end for s in shape.balance(2)] == [2, 4]
    sizes: dict[str, Any] = {"layers": 30, "width": 4096, "inner": 11008, "vocab": 200_000}
    big = replace(shape, **sizes)
    ends = [s.end for s in big.balance(3)]
    assert ends[0] == ends[1] - ends[0] > 30 - ends[1]
    assert big.balance(3, "nf4")[-1].first > ends[1]  # the head stays in 16 bits
    assert big.balance(3, "int4", "none")[-1].first > big.balance(3, "int4")[-1].first


@pytest.mark.parametrize(
    ("quant", "head", "layers"),
    [("none", 5.1, 18), ("int4", 6.1, 18), ("int8", 6.0, 18), ("nf4", 8.8, 19)],
)
def test_a_small_model_is_cut_as_was_measured(
    folder: Path, quant: str, head: float, layers: int
) -> None:
    """Of the sizes of smollm2-135m, whose head takes as long as so many of its layers."""
    sizes: dict[str, Any] = {"layers": 30, "width": 576, "inner": 1536, "vocab": 49152}
    heads: dict[str, Any] = {"heads": 9, "kv_heads": 3, "head_dim": 64}
    shape = replace(Architecture.read(folder), **sizes, **heads)
    first, last = shape.balance(2, quant)
    assert first.end == layers
    ways = [max(end, 30 - end + head) for end in range(1, 30)]
    assert max(first.end, last.end - last.first + head) < 1.02 * min(ways)


def test_of_experts_those_count_that_a_token_goes_through(folder: Path) -> None:
    """Six sparse layers, of which a token reads a quarter of what it reads of each dense one."""
    sparse = tuple(layer >= 2 for layer in range(8))
    sizes: dict[str, Any] = {"layers": 8, "width": 4096, "inner": 16384, "vocab": 61}
    mixture = Mixture(experts=64, chosen=2, inner=2048, normalised=True, layers=sparse)
    big = replace(Architecture.read(folder), **sizes, mixture=mixture)
    assert [each.end for each in big.balance(2)] == [2, 8]
    assert [each.end for each in replace(big, mixture=None).balance(2)] == [4, 8]


_MEASURE = """
import resource, sys
from pathlib import Path
from gardener.model.checkpoint.slices import Slice
from gardener.stages.load import load_stage
from gardener.protocol.messages import Open
load_stage(Path(sys.argv[1]), Slice(0, 1, 9))  # imports and first use of kernels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_stage(Path(sys.argv[2]), Slice(3, 6, 9))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted otherwise elsewhere")
def test_loading_a_slice_takes_little_more_than_the_slice(tmp_path: Path) -> None:
    """The model is 9 layers of 19 MB, the slice 3 of them: its 57 MB, and a layer twice over while
    it is fused. The bound is generous, but well below the 170 MB of the whole."""
    tiny.make("llama", tmp_path / "small", num_hidden_layers=9)
    sizes = {"hidden_size": 512, "intermediate_size": 2560, "num_hidden_layers": 9}
    tiny.make("llama", tmp_path / "large", **sizes)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path / "small"), str(tmp_path / "large")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    layer = 4 * (512 * 512 * 3 + 512 * 2560 * 3)
    assert int(done.stdout) < 6 * layer
