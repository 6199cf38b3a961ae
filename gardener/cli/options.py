"""Options that several commands have, each declared once, in groups that a command takes whole.

A setting has a twin in the environment (`GARDENER_*`) and may stand in the file of `--config`. What
belongs to a single call (`--json`, `--verbose`) has no twin.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli.groups import DRAFTING, MODEL, POLICY, RING
from gardener.cli.program import Misuse, flag, note, text_of
from gardener.cli.security_options import SecurityOptions
from gardener.cli.spare_options import SpareOptions
from gardener.cli.stage_options import StageOptions
from gardener.decoding.limits import MAX_REQUESTS, PATIENCE_LOST
from gardener.decoding.policy import FLOOR, POLICIES, Bounds
from gardener.draft.factory import DraftSettings
from gardener.holder.templates import NEEDS
from gardener.rings.settings import RingSettings

DEFAULT_MODEL = "smollm2-135m"

DraftDTypeName: TypeAlias = Literal["auto", "int8", "float32", "bfloat16", "float16"]
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


Config: TypeAlias = Annotated[
    Path | None,
    Parameter(
        env_var="GARDENER_CONFIG",
        help="TOML file with defaults for these options, in a table named after the command.",
    ),
]
Revision: TypeAlias = Annotated[
    str | None, Parameter(env_var="GARDENER_REVISION", help="Branch, tag or commit of a hub id.")
]
Listen: TypeAlias = Annotated[
    str,
    Parameter(
        env_var="GARDENER_LISTEN",
        metavar="HOST:PORT",
        help="Where to listen for the stage before; the last stage's --peer is the holder.",
    ),
]
PatienceSeconds: TypeAlias = Annotated[
    float,
    Parameter(
        env_var="GARDENER_PATIENCE",
        validator=Number(gte=0.1),
        metavar="SECONDS",
        help="How long to wait for the ring to close; for a node, until the next stage is there.",
    ),
]
Draft: TypeAlias = Annotated[
    str,
    Parameter(
        group=DRAFTING,
        env_var="GARDENER_DRAFT",
        metavar="KIND,...",
        help="Drafters: ngram, eagle, model, none. auto: ngram, and whatever else is there for the "
        "model (--head, --draft-model, or a head that comes with the package).",
    ),
]
Policy: TypeAlias = Annotated[
    PolicyName | None,
    Parameter(
        group=POLICY,
        env_var="GARDENER_POLICY",
        help="What goes into the ring when. Default: gardener; alternating where the stages and "
        "the drafter share the cores of one machine.",
    ),
]
NewTokens: TypeAlias = Annotated[
    int,
    Parameter(
        env_var="GARDENER_MAX_NEW_TOKENS", validator=Number(gte=1), help="Most tokens to write."
    ),
]
Raw: TypeAlias = Annotated[bool, flag(help="Without a chat template: the text as it is.")]
NoView: TypeAlias = Annotated[
    bool, flag(env_var="GARDENER_NO_VIEW", help="No live view, even on a terminal.")
]
Record: TypeAlias = Annotated[
    Path | None,
    Parameter(
        metavar="FILE",
        help="Write down what the live view shows, for `gardener replay`, with or without a "
        "terminal; packed if the name ends with .gz. Nothing is written over.",
    ),
]
LogFormat: TypeAlias = Annotated[
    Literal["text", "json"],
    Parameter(
        env_var="GARDENER_LOG_FORMAT",
        help="How lines on standard error are written: for people, or one JSON object each.",
    ),
]
Json: TypeAlias = Annotated[bool, flag("--json", help="Print one JSON object.")]


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ModelOptions:
    """Which model it is."""

    model: Annotated[
        str,
        Parameter(
            env_var="GARDENER_MODEL",
            help="A Hugging Face directory, a .gguf file, a hub id, or the built-in smollm2-135m.",
        ),
    ] = DEFAULT_MODEL
    revision: Revision = None


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ChatOptions:
    """How a prompt becomes a chat."""

    template: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_TEMPLATE",
            metavar="NAME|FILE",
            help=f"The chat template: {', '.join(NEEDS)}, or a Jinja file. Default: the model's "
            "own; for a model that brings none, the one that was made for it, if its name tells.",
        ),
    ] = None
    system: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_SYSTEM",
            metavar="TEXT",
            help="System message. Default: what the template writes by itself, if anything; an "
            "empty one ('') leaves that out too.",
        ),
    ] = None

    def tell_raw(self, raw: bool) -> None:
        """Say what comes to nothing without a template."""
        given = [name for name in ("template", "system") if getattr(self, name) is not None]
        if raw and given:
            options = ", ".join(f"--{name}" for name in given)
            note(f"--raw takes the text as it is: {options} has no effect")


@Parameter(name="*", group=RING)
@dataclass(frozen=True)
class RingOptions:
    """Stages that one command starts or simulates for itself."""

    local: Annotated[
        int | None,
        Parameter(
            env_var="GARDENER_LOCAL",
            validator=Number(gte=1),
            metavar="N",
            help="Start this many stages on this machine, and end them afterwards.",
        ),
    ] = None
    simulate: Annotated[
        int | None,
        Parameter(
            env_var="GARDENER_SIMULATE",
            validator=Number(gte=1),
            metavar="N",
            help="Simulate a ring of this many stages under a virtual clock: the real drafter, "
            "policies and messages, the model's own answers (recorded once, in float32), and the "
            "times of a --profile.",
        ),
    ] = None
    profile: Annotated[
        str,
        Parameter(
            env_var="GARDENER_PROFILE",
            metavar="NAME|FILE",
            help="The machines that --simulate stands for: loopback, loopback-bf16, small-int4 or "
            "cpu-int4; jetson-7b, gpu or cpu, each also with -slow or -far; or a TOML file.",
        ),
    ] = "loopback"


@Parameter(name="*", group=RING)
@dataclass(frozen=True)
class ConnectionOptions:
    """Where the ring is, and how long to wait for it."""

    peer: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_RING",
            metavar="HOST:PORT",
            help="Where stage 1 of a ring that already runs listens.",
        ),
    ] = None
    listen: Listen = "127.0.0.1:7000"
    patience: PatienceSeconds = 120.0
    patience_lost: Annotated[
        float,
        Parameter(
            env_var="GARDENER_PATIENCE_LOST",
            validator=Number(gte=0.0),
            metavar="SECONDS",
            help="How long answers wait for a ring that broke, to go on where they were; 0: they "
            "end with it.",
        ),
    ] = PATIENCE_LOST
    max_requests: Annotated[
        int | None,
        Parameter(
            env_var="GARDENER_MAX_REQUESTS",
            validator=Number(gte=1),
            metavar="N",
            help=f"Most requests that run at the same time; others wait. Default: {MAX_REQUESTS}, "
            "or as many as --concurrency asks for.",
        ),
    ] = None


@Parameter(name="*", group=DRAFTING)
@dataclass(frozen=True)
class DraftOptions:
    """What drafters are made of."""

    head: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_HEAD",
            help="EAGLE-1 or EAGLE-3 head: a folder, a hub id, or the name of a shipped one.",
        ),
    ] = None
    draft_model: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_DRAFT_MODEL",
            help="A small model with the same tokens, to draft with.",
        ),
    ] = None
    draft_dtype: Annotated[
        DraftDTypeName,
        Parameter(
            env_var="GARDENER_DRAFT_DTYPE",
            help="What drafters compute in. auto: a head in int8 where that is faster on the CPU.",
        ),
    ] = "auto"
    draft_device: Annotated[
        str, Parameter(env_var="GARDENER_DRAFT_DEVICE", help="cpu, cuda, cuda:1 or mps.")
    ] = "cpu"

    def settings(self, draft: str) -> DraftSettings:
        """Drafters of the kinds that `draft` names, as --draft does. Raises UserError."""
        kinds: tuple[str, ...] | None = tuple(kinds_in(draft))
        if kinds == ("auto",):
            kinds = None
        elif kinds == ("none",):
            kinds = ()
        return DraftSettings(
            kinds, self.head, self.draft_model, self.draft_dtype, self.draft_device
        )


@Parameter(name="*", group=POLICY)
@dataclass(frozen=True)
class BoundsOptions:
    """Bounds of every policy."""

    rows: Annotated[
        int | None,
        Parameter(
            env_var="GARDENER_ROWS",
            validator=Number(gte=1, lte=1024),
            metavar="1..1024",
            help="Most rows in a segment. Default: as many as pay, by the measured times.",
        ),
    ] = None
    window: Annotated[
        int | None,
        Parameter(
            env_var="GARDENER_WINDOW",
            validator=Number(gte=1, lte=64),
            metavar="1..64",
            help="Most segments under way at once. Default: as many as keep all stages at work. "
            "Where stages share cores, giving one makes gardener the default policy.",
        ),
    ] = None
    floor: Annotated[
        float,
        Parameter(
            env_var="GARDENER_FLOOR",
            validator=Number(gte=0.001, lte=1.0),
            metavar="0.001..1",
            help="Guesses less likely than this are not sent.",
        ),
    ] = FLOOR

    def bounds(self) -> Bounds:
        """These bounds in the form that a policy takes."""
        return Bounds(self.rows, self.window, self.floor)


@Parameter(name="*")
@dataclass(frozen=True)
class OutputOptions:
    """What is printed."""

    as_json: Json = False
    verbose: Annotated[
        bool, flag("--verbose", "-v", help="Show what the stages of a local ring print.")
    ] = False


@Parameter(name="*")
@dataclass(frozen=True)
class HolderOptions:
    """What every command takes that holds a ring, whichever way it comes by one."""

    connection: ConnectionOptions = field(default_factory=ConnectionOptions)
    security: SecurityOptions = field(default_factory=SecurityOptions)
    spares: SpareOptions = field(default_factory=SpareOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    chat: ChatOptions = field(default_factory=ChatOptions)
    stages: StageOptions = field(default_factory=StageOptions)
    drafting: DraftOptions = field(default_factory=DraftOptions)
    bounds: BoundsOptions = field(default_factory=BoundsOptions)

    def settings(self, ring: RingOptions, draft: DraftSettings) -> RingSettings:
        """A ring with these options. Raises UserError."""
        places = (self.connection, self.security, self.spares, ring)
        groups = (*places, self.model, self.chat, self.stages)
        given: dict[str, Any] = {}
        for group in groups:
            given |= asdict(group)
        if given["system"] is not None:
            given["system"] = text_of(given["system"], "--system")
        given["max_requests"] = given["max_requests"] or MAX_REQUESTS
        given["keep_prefixes"] = False  # a command asks once, or measures every answer for itself
        # One option for all that computes here, stages and drafters.
        return RingSettings(**given, draft=replace(draft, graphs=self.stages.graphs))


def kinds_in(draft: str) -> list[str]:
    """The kinds of drafters that a list with commas names; `none` if it is empty."""
    return [kind.strip() for kind in draft.split(",") if kind.strip()] or ["none"]


def policies(text: str) -> list[str]:
    """The policies that a list with commas names, each once. Raises Misuse."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        raise Misuse(f"no policy {unknown[0]!r}: choose from {', '.join(POLICIES)}")
    return names
