"""`gardener make-random`: a model of a real shape with random weights."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli import options as o
from gardener.cli.program import Misuse, note, result
from gardener.errors import UserError

LikeOption = Annotated[
    Literal["llama-2-7b", "llama-2-13b", "llama-3.1-8b", "llama-3.2-1b"],
    Parameter(help="The model whose shape it has: sizes, vocabulary, rotary embedding."),
]
LayersOption = Annotated[
    int | None,
    Parameter(validator=Number(gte=1), metavar="N", help="Fewer layers than the model has."),
]
OutOption = Annotated[
    Path, Parameter(metavar="PATH", help="A folder that does not exist yet; with --gguf, a file.")
]
QuantOption = Annotated[
    Literal["none", "int4", "int8"],
    Parameter(help="Store the linear layers quantised, as `gardener split --quant` does."),
]
DTypeOption = Annotated[
    Literal["float32", "bfloat16", "float16"], Parameter(help="Of what is not quantised.")
]
GGUFOption = Annotated[
    Literal["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16"] | None,
    Parameter(help="Write a GGUF file whose matrices are of this type, not a folder."),
]
SeedOption = Annotated[int, Parameter(help="The same seed gives the same weights.")]


def make_random(
    *,
    like: LikeOption,
    out: OutOption,
    layers: LayersOption = None,
    quant: QuantOption = "none",
    dtype: DTypeOption = "bfloat16",
    gguf: GGUFOption = None,
    seed: SeedOption = 0,
    as_json: o.Json = False,
) -> None:
    """Write a model with random weights, to try size and speed where no weights can be had.

    gardener make-random --like llama-2-7b --layers 8 --quant int4 --out random-7b
    """
    if gguf is not None and (quant != "none" or dtype != "bfloat16"):
        raise Misuse("--gguf says what the weights are stored in: leave --quant and --dtype out")
    # Only here: these import torch, which other commands start without.
    from gardener.model.checkpoint.quantised import Quantised
    from gardener.model.random.shapes import config_like

    began, config = time.monotonic(), config_like(like, layers)
    if gguf is not None:
        _writer()(config, out, gguf, seed=seed)
    else:
        from gardener.model.random.folder import write_folder

        how = None if quant == "none" else Quantised(quant)
        write_folder(config, out, dtype=dtype, quantised=how, seed=seed)
    files = [out] if out.is_file() else sorted(out.iterdir())
    size, seconds = sum(file.stat().st_size for file in files), time.monotonic() - began
    if as_json:
        said = {"out": str(out), "bytes": size, "seconds": round(seconds, 2)}
        result(json.dumps(said) + "\n")
    else:
        note(f"{out} written in {seconds:.1f} s: {size / 1e6:.0f} MB")


def _writer() -> Callable[..., None]:
    """What writes GGUF files. Raises UserError without the package that it needs."""
    from gardener.model.checkpoint.gguf_types import NEEDS_GGUF

    try:
        from gardener.model.random.gguf import write_gguf
    except ImportError as error:
        raise UserError(NEEDS_GGUF) from error
    return write_gguf
