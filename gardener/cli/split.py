"""`gardener split`: a folder per stage, so that each machine needs only its own files."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli import options as o
from gardener.cli.cut_report import Parts, report
from gardener.cli.measured_split import MeasuredOptions
from gardener.cli.program import Misuse, note, result
from gardener.errors import UserError
from gardener.model.checkpoint.parts import HOLDER
from gardener.model.checkpoint.quantised import HEAD_QUANT, Quantised, quantised
from gardener.model.quants import GROUP, GROUPED

if TYPE_CHECKING:  # these import torch
    from gardener.model.architecture import Architecture
    from gardener.model.checkpoint.slices import Slice

ModelArgument = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=False,
        help="A Hugging Face directory, a .gguf file, a hub id, or smollm2-135m.",
    ),
]
OutOption = Annotated[
    Path | None,
    Parameter(
        metavar="FOLDER",
        show_default=False,
        help="A folder that does not exist yet. With --measured it may be left out.",
    ),
]
StagesOption = Annotated[
    int | None,
    Parameter(
        validator=Number(gte=1),
        metavar="N",
        help="How many stages. Without --layers they are balanced.",
    ),
]
LayersOption = Annotated[
    str | None,
    Parameter(
        metavar="A-B,...",
        help="Layers of each stage: 0-9,10-19,20-29. auto: by the times of --measured.",
    ),
]
StoredOption = Annotated[
    Literal["keep", "float32", "bfloat16", "float16"],
    Parameter(help="What to store the weights in; keep: as they are."),
]
QuantOption = Annotated[
    Literal["none", "int4", "int8"],
    Parameter(
        help="Store the linear layers of the stages quantised, so that no machine ever holds or "
        "quantises the whole of them. What is quantised in a .gguf file stays as it is."
    ),
]
GroupOption = Annotated[
    Literal[32, 64, 128] | None,
    Parameter(help=f"How many weights share a scale, with --quant. Default: {GROUP}."),
]
HeadOption = Annotated[
    Literal["auto", "none", "int4", "int8"],
    Parameter(help=f"The output matrix, with --quant. auto: {HEAD_QUANT}."),
]


def split(
    model: ModelArgument,
    /,
    *,
    out: OutOption = None,
    stages: StagesOption = None,
    layers: LayersOption = None,
    measured: MeasuredOptions = MeasuredOptions(),
    dtype: StoredOption = "keep",
    quant: QuantOption = "none",
    group: GroupOption = None,
    quant_head: HeadOption = "auto",
    revision: o.Revision = None,
    as_json: o.Json = False,
) -> None:
    """Cut a model into one folder per stage, and one for the draft holder.

    gardener split smollm2-135m --stages 3 --out smollm2-split
    """
    # Only here: these import torch, which other commands start without.
    from gardener.model.architecture import Architecture
    from gardener.model.checkpoint import resolve as models
    from gardener.model.checkpoint.slices import parse_layers
    from gardener.model.checkpoint.split import Stored
    from gardener.model.checkpoint.split import split as cut

    asked = _quantised(quant, group, quant_head)
    measured.check(stages, layers, out)
    began = time.monotonic()
    source = models.resolve(model, revision, part=HOLDER if out is None else None, say=note)
    shape, how = Architecture.read(source), quantised(source) or asked
    balance = measured.balance(source, shape.layers, stages)
    if balance is not None:
        slices = list(balance.cut)
    elif layers is not None:
        slices = parse_layers(layers, shape.layers, stages)
    elif stages is not None:
        slices = _balanced(shape, stages, how)
    else:
        raise UserError("say how to cut: --stages N balances them, --layers 0-9,10-19 names them")
    manifest: dict[str, Any] = {} if balance is None else balance.facts()
    if out is not None:
        _tell_bits(model, source, asked)
        manifest |= cut(source, slices, out, stored=Stored(dtype, asked), name=model, say=note)
        manifest["out"] = str(out)
        manifest["seconds"] = round(time.monotonic() - began, 2)
        manifest["peak_bytes"] = _peak_bytes()
    if as_json:
        result(json.dumps(manifest) + "\n")
        return
    if out is not None:
        _report(manifest)
    if balance is not None:
        report(balance, Parts(model, out, None if out is None else how))


def _quantised(
    quant: Literal["none", "int4", "int8"],
    group: int | None,
    head: Literal["auto", "none", "int4", "int8"],
) -> Quantised | None:
    """Raises Misuse for options that have no effect."""
    if quant != "none":
        return Quantised(quant, group or GROUP, HEAD_QUANT if head == "auto" else head)
    if group is not None or head != "auto":
        raise Misuse("--group and --quant-head say how to quantise: give --quant int4 or int8 too")
    return None


def _balanced(shape: "Architecture", stages: int, how: Quantised | None) -> list["Slice"]:
    """The cut by sizes, as they are once they are quantised."""
    if how is None:
        return shape.balance(stages)
    return shape.balance(stages, how.quant, how.quant_head)


def _tell_bits(model: str, source: Path, asked: Quantised | None) -> None:
    """Say so if layers are not stored in the kind that is asked for: they stay as a file has
    them."""
    from gardener.model.checkpoint.tensors import Checkpoint  # late: it imports torch

    if asked is None:
        return
    checkpoint = Checkpoint(source)
    names = [name for name in checkpoint.names() if ".layers." in name]
    layouts = [layout for name in names if (layout := checkpoint.layout(name, asked.quant))]
    others = sorted({layout.bits for layout in layouts} - {GROUPED[asked.quant]})
    if others:
        note(
            f"{model} is quantised in {' and '.join(map(str, others))} bits already, and stays so: "
            f"--quant {asked.quant} is for what it has in floats"
        )


def _report(manifest: dict[str, Any]) -> None:
    for stage in manifest["stages"]:
        note(f"{stage['folder']}: layers {stage['layers']}, {stage['bytes'] / 1e6:.0f} MB")
    note(
        f"{manifest['out']} written in {manifest['seconds']:.1f} s; "
        f"peak memory {manifest['peak_bytes'] / 1e6:.0f} MB"
    )


def _peak_bytes() -> int:
    """The most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
