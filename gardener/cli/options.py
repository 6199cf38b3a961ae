"""Options that several commands have, declared once. Settings have a twin in the environment;
what belongs to a single call (`--json`, `--verbose`) has none."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from gardener.cli.program import settings
from gardener.decoding.policy import POLICIES
from gardener.draft.factory import DraftSettings

DEFAULT_MODEL = "smollm2-135m"


DTypeName: TypeAlias = Literal["float32", "bfloat16", "float16"]
DraftDTypeName: TypeAlias = Literal["auto", "int8", "float32", "bfloat16", "float16"]
QuantName: TypeAlias = Literal["none", "nf4", "fp4", "int8"]
PolicyName: TypeAlias = Literal[  # the keys of policy.POLICIES
    "plain",
    "serial",
    "chunked",
    "chunked-80",
    "pipedec",
    "pipedec-16",
    "flowspec",
    "flowspec-80",
    "gardener",
    "alternating",
]


def policies(text: str) -> list[str]:
    """The policies that a list with commas names, each once. Raises typer.BadParameter."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        raise typer.BadParameter(f"no policy {unknown[0]!r}: choose from {', '.join(POLICIES)}")
    return names


def drafting(
    draft: str, head: str | None, model: str | None, dtype: str, device: str
) -> DraftSettings:
    """What the options about drafting say. Raises UserError."""
    kinds = tuple(kind.strip() for kind in draft.split(",") if kind.strip())
    if kinds == ("auto",):
        return DraftSettings(None, head, model, dtype, device)
    return DraftSettings(() if kinds == ("none",) else kinds, head, model, dtype, device)


Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        envvar="GARDENER_CONFIG",
        callback=settings,
        is_eager=True,
        help="TOML file with defaults for these options, in a table named after the command.",
    ),
]
Model: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="GARDENER_MODEL",
        help="A Hugging Face directory, a .gguf file, a hub id, or the built-in smollm2-135m.",
    ),
]
Revision: TypeAlias = Annotated[
    str | None,
    typer.Option(envvar="GARDENER_REVISION", help="Branch, tag or commit of a hub id."),
]
DType: TypeAlias = Annotated[
    DTypeName, typer.Option(envvar="GARDENER_DTYPE", help="What stages started here compute in.")
]
Device: TypeAlias = Annotated[
    str, typer.Option(envvar="GARDENER_DEVICE", help="cpu, cuda, cuda:1 or mps.")
]
Threads: TypeAlias = Annotated[
    int | None,
    typer.Option(
        envvar="GARDENER_THREADS",
        min=1,
        help="Threads per stage, and of the drafter of a local ring. Default: all cores; shared by "
        "the stages of a local ring, unless no two of them compute at once.",
    ),
]
Quant: TypeAlias = Annotated[
    QuantName,
    typer.Option(envvar="GARDENER_QUANT", help="Quantise the linear layers (bitsandbytes)."),
]
Local: TypeAlias = Annotated[
    int | None,
    typer.Option(
        envvar="GARDENER_LOCAL",
        min=1,
        help="Start this many stages on this machine, and end them afterwards.",
    ),
]
Simulate: TypeAlias = Annotated[
    int | None,
    typer.Option(
        envvar="GARDENER_SIMULATE",
        min=1,
        help="Simulate a ring of so many stages under a virtual clock: the real drafter, policies "
        "and messages, the model's own answers (recorded once, in float32), and the times of a "
        "--profile.",
    ),
]
Profile: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="GARDENER_PROFILE",
        metavar="NAME|FILE",
        help="The machines that --simulate stands for: loopback or loopback-bf16; jetson-7b, "
        "gpu or cpu, each also with -slow or -far; or a TOML file.",
    ),
]
Peer: TypeAlias = Annotated[
    str | None,
    typer.Option(
        envvar="GARDENER_RING",
        metavar="HOST:PORT",
        help="Where stage 1 of a ring listens that is there already.",
    ),
]
Listen: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="GARDENER_LISTEN",
        metavar="HOST:PORT",
        help="Where to listen for the stage before; the last stage's --peer is the holder.",
    ),
]
Patience: TypeAlias = Annotated[
    float,
    typer.Option(
        envvar="GARDENER_PATIENCE",
        min=0.1,
        metavar="SECONDS",
        help="How long to wait for the ring to close; a node: for the next stage to be there.",
    ),
]
Rows: TypeAlias = Annotated[
    int | None,
    typer.Option(
        envvar="GARDENER_ROWS",
        min=1,
        max=1024,
        help="Most rows in a segment. Default: as many as pay, by the measured times.",
    ),
]
Window: TypeAlias = Annotated[
    int | None,
    typer.Option(
        envvar="GARDENER_WINDOW",
        min=1,
        max=64,
        help="Most segments under way at once. Default: as many as keep all stages at work. Where "
        "stages share cores, giving one makes gardener the default policy.",
    ),
]
Floor: TypeAlias = Annotated[
    float,
    typer.Option(
        envvar="GARDENER_FLOOR",
        min=0.001,
        max=1.0,
        help="Guesses less likely than this are not sent.",
    ),
]
Draft: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="GARDENER_DRAFT",
        metavar="KIND,...",
        help="Drafters: ngram, eagle, model, none. auto: n-gram, and all that is there for the "
        "model (--head, --draft-model, a head that is shipped).",
    ),
]
Head: TypeAlias = Annotated[
    str | None,
    typer.Option(
        envvar="GARDENER_HEAD",
        help="EAGLE-1 or EAGLE-3 head: a folder, a hub id, or the name of a shipped one.",
    ),
]
DraftModel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        envvar="GARDENER_DRAFT_MODEL", help="A small model of the same vocabulary, to draft with."
    ),
]
DraftDType: TypeAlias = Annotated[
    DraftDTypeName,
    typer.Option(
        envvar="GARDENER_DRAFT_DTYPE",
        help="What drafters compute in. auto: a head in int8 where that is faster on the CPU.",
    ),
]
DraftDevice: TypeAlias = Annotated[
    str, typer.Option(envvar="GARDENER_DRAFT_DEVICE", help="cpu, cuda, cuda:1 or mps.")
]
NewTokens: TypeAlias = Annotated[
    int,
    typer.Option(
        "--max-new-tokens", envvar="GARDENER_MAX_NEW_TOKENS", min=1, help="Most tokens to write."
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
NoView: TypeAlias = Annotated[
    bool,
    typer.Option("--no-view", envvar="GARDENER_NO_VIEW", help="No live view, even on a terminal."),
]
Verbose: TypeAlias = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show what the stages of a local ring print.")
]
