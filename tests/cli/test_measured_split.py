"""`gardener split --measured`, with rings and files."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from commands import Said, gardener
from processes import at, hand_made

from gardener.cli.measured_split import MeasuredOptions
from gardener.cli.split import split
from gardener.errors import UserError
from gardener.model.checkpoint.tensors import fingerprint

SLOW = """
import time
from gardener.model.block import Block
call = Block.__call__
def slowly(*arguments):
    time.sleep(0.05)
    return call(*arguments)
Block.__call__ = slowly
"""
"""Layers that take 50 ms longer."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of four layers."""
    folder: Path = tmp_path_factory.mktemp("measured") / "model"
    tiny.make("llama", folder)
    return folder


def stage(first: int, end: int, layer_ms: float, **more: object) -> dict[str, Any]:
    return {"name": "oak", "first": first, "end": end, "layer_ms": layer_ms, **more}


RING = {"layers": 4, "stages": [stage(0, 1, 1.0), stage(1, 4, 3.0, head_ms=2.0)]}


def written(file: Path, model: Path, ring: dict[str, Any]) -> Path:
    """The file, which holds this ring of this model."""
    file.write_text(json.dumps({"model": fingerprint(model), **ring}))
    return file


def asked(model: Path, *options: object) -> Said:
    return gardener("split", model, *options)


def test_a_slow_stage_of_a_real_ring_gets_fewer_layers(model: Path, tmp_path: Path) -> None:
    with hand_made(2) as ring:
        ring.start(1, "--model", str(model), before=SLOW)
        ring.start(2, "--model", str(model))
        place = ("--measured", at(ring.ports[1]), "--listen", at(ring.ports[0]))
        told = asked(model, *place, "--json")
        assert told.status == 0, told.err
        found = json.loads(told.out)
        first, last = found["measured"]["stages"]
        assert (first["first"], first["end"], last["end"]) == (0, 2, 4)
        assert first["layer_ms"] > 50 > last["layer_ms"]
        assert last["head_ms"] > 0
        assert found["cut"] == ["0", "1-3"]
        cut = asked(model, *place, "--layers", "auto", "--out", tmp_path / "out")
        assert cut.status == 0, cut.err
        assert f"gardener-node --stage 2 --model {tmp_path / 'out'} --dtype float32" in cut.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [each["layers"] for each in manifest["stages"]] == ["0-0", "1-3"]
    file = tmp_path / "told.json"
    file.write_text(json.dumps(found))
    again = asked(model, "--measured", file, "--json")
    assert again.status == 0
    assert json.loads(again.out) == found


def test_a_ring_of_quantised_folders_is_measured_by_the_folder_that_they_are_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how to write them anew, and takes what it was told for the model itself, too."""
    model, parts, file = tmp_path / "my model", tmp_path / "parts", tmp_path / "told.json"
    tiny.make("llama", model, hidden_size=64, intermediate_size=96)
    split(str(model), stages=2, quant="int8", quant_head="int4", out=parts)
    with hand_made(2) as ring:
        for stage in (1, 2):
            ring.start(stage, "--model", str(parts))
        place = ("--measured", at(ring.ports[1]), "--listen", at(ring.ports[0]))
        told = asked(parts, *place, "--json")
        assert told.status == 0, told.err
        found = json.loads(told.out)["measured"]
        assert (found["quant"], found["quant_head"]) == ("int8", "int4")
    found["stages"][0]["layer_ms"] = 1e3
    file.write_text(json.dumps(found))
    times = MeasuredOptions(str(file))
    capsys.readouterr()
    split(str(parts), measured=times)
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "write the parts anew, then start each stage with its own, as before:",
        f"gardener split '{model}' --layers 0,1-3 --quant int8 --group 32 --quant-head int4 "
        "--out FOLDER",
    ]
    split(str(model), measured=times, quant="int8", quant_head="int4", out=tmp_path / "new")
    start = f"gardener-node --stage 1 --model {tmp_path / 'new'} --dtype float32 ...\n"
    told_so = capsys.readouterr().err
    assert start in told_so
    assert "measure again" not in told_so
    split(str(model), measured=times, quant="int4", out=tmp_path / "others")
    told_of = (
        "with the head in int8, and these times are of int8, with the head in int4: measure again"
    )
    assert told_of in capsys.readouterr().err
    with pytest.raises(UserError, match="needed here: give the model that it was split from"):
        split(str(parts), measured=times, out=tmp_path / "more")


def test_it_says_who_should_hold_what_and_what_that_brings(model: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "ring.json", model, RING)
    told = asked(model, "--measured", file)
    assert told.status == 0
    assert told.out == ""
    assert told.err.splitlines() == [
        "stage 1 (oak): now holds layer 0, 1 ms a token (1 ms a layer); should hold 0-2: 3 ms",
        "stage 2 (oak): now holds layers 1-3, 11 ms a token (3 ms a layer, head 2 ms); should "
        "hold 3: 5 ms",
        "the slowest stage: 11 -> 5 ms a token, 2.20 times as fast",
        "plain decoding: 12 -> 8 ms a token, 1.50 times as fast",
        "start the stages so, each with the options that it had besides (--listen, --peer):",
        f"gardener-node --stage 1 --layers 0-2 --model {model} --dtype float32 ...",
        f"gardener-node --stage 2 --layers 3 --model {model} --dtype float32 ...",
    ]


def test_memory_that_holds_a_stage_back_is_mentioned(model: Path, tmp_path: Path) -> None:
    stages = [stage(0, 1, 1.0, most=2), stage(1, 4, 3.0, head_ms=2.0)]
    ring = {**RING, "stages": stages, "quant": "int4", "quant_head": "none"}
    file = written(tmp_path / "ring.json", model, ring)
    told = asked(model, "--measured", file)
    assert told.status == 0
    assert "should hold 0-1: 2 ms, all that its memory takes\n" in told.err
    assert "should hold 2-3: 8 ms\n" in told.err
    assert " --quant int4 --quant-head none ..." in told.err


@pytest.mark.parametrize(
    ("options", "status", "what"),
    [
        (["--layers", "auto"], 2, "--layers auto cuts by measured times: give --measured"),
        ([], 2, "--out requires an argument, and is not given at all"),
        (["--measured", "{file}", "--layers", "0-3"], 2, "leave one of them out"),
        (["--measured", "{file}", "--stages", "3"], 1, "the ring of --measured has 2"),
        (["--measured", "nowhere.json"], 1, "there is no file nowhere.json"),
        (["--measured", "oak"], 1, "'oak' is not an address"),
    ],
)
def test_options_that_do_not_go_together(
    model: Path, tmp_path: Path, options: list[str], status: int, what: str
) -> None:
    file = written(tmp_path / "ring.json", model, RING)
    told = asked(model, *(each.format(file=file) for each in options))
    assert told.status == status
    assert what in told.err


@pytest.mark.parametrize(
    ("ring", "what"),
    [
        ({**RING, "layers": 5}, "the stages hold 4 layers of 5"),
        ({"layers": 2, "stages": [stage(0, 2, 1.0, head_ms=1.0)]}, "is of a model with 2 layers"),
        ({**RING, "stages": [stage(0, 4, 1e-300, head_ms=1.0)]}, "`float` >= 1e-06"),
        ({**RING, "model": "1234:5678"}, "is of the model '1234:5678', and this one is '"),
        ({**RING, "quant": "int4; reboot"}, "holds no measured times (Invalid enum value"),
        ({"stages": []}, "holds no measured times"),
    ],
)
def test_files_that_say_no_times(
    model: Path, tmp_path: Path, ring: dict[str, Any], what: str
) -> None:
    file = written(tmp_path / "ring.json", model, ring)
    told = asked(model, "--measured", file)
    assert told.status == 1
    assert what in told.err
