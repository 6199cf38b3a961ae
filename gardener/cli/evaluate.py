"""`gardener eval`: every policy on the same prompts; figures, plots, and a check of the texts."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli import options as o
from gardener.cli.cluster_options import ClusterFile
from gardener.cli.groups import DRAFTING, RING
from gardener.cli.measuring import Evaluation, measure_all
from gardener.cli.program import flag, note
from gardener.cli.sampling import SamplingOptions
from gardener.decoding.limits import MAX_REQUESTS
from gardener.decoding.policy import (
    POLICIES,
    SHARING,
    default_comparison,
    default_policy,
)
from gardener.draft.factory import DraftSettings
from gardener.errors import UserError
from gardener.evaluation.datasets import read_conversations
from gardener.evaluation.machine import commit, machine, versions
from gardener.evaluation.plan import Place, Plan, drafted, numbers, places
from gardener.evaluation.results import Results, new_folder
from gardener.rings.settings import RingSettings

MoreArgument = Annotated[
    Path,
    Parameter(metavar="FILE", allow_leading_hyphen=False, help="More files, as for --data."),
]


@Parameter(name="*", group=RING)
@dataclass(frozen=True)
class RingsOptions:
    """The rings to measure, one after the other."""

    local: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_LOCAL",
            metavar="N,...",
            help="Start this many stages on this machine; with several numbers, one ring after the "
            "other. Default: 2, if no other ring is named.",
        ),
    ] = None
    simulate: Annotated[
        str | None,
        Parameter(
            env_var="GARDENER_SIMULATE",
            metavar="N,...",
            help="Simulate rings of this many stages under a virtual clock.",
        ),
    ] = None
    profile: Annotated[
        str,
        Parameter(
            env_var="GARDENER_PROFILE",
            metavar="NAME|FILE,...",
            help="The machines that --simulate stands for; with several, one after the other.",
        ),
    ] = "loopback"
    draft: Annotated[
        list[str] | None,
        Parameter(
            group=DRAFTING,
            env_var="GARDENER_DRAFT",
            metavar="KIND,...",
            help="Drafters: ngram, eagle, model, none, or auto (the default), as for generate. "
            "Given several times, each ring is measured with these and with those.",
        ),
    ] = None


@Parameter(name="*", group="Evaluation")
@dataclass(frozen=True)
class EvaluationOptions:
    """What every ring is given, and where the figures go."""

    data: Annotated[
        list[Path] | None,
        Parameter(
            metavar="FILE",
            help='JSONL with rows like {"turns": ["...", "..."]}, or text with one prompt a line. '
            "May be given several times. Default: a small set of Gardener's own.",
        ),
    ] = None
    prompts: Annotated[
        int | None,
        Parameter(validator=Number(gte=1), metavar="N", help="Only the first N rows of each file."),
    ] = None
    policies: Annotated[
        str | None,
        Parameter(
            metavar="NAME,...",
            help="Which to run, with commas between. Default: plain, serial, chunked, pipedec, "
            "flowspec and what generate would run: gardener, or alternating where the stages and "
            "the drafter share the cores of one machine.",
        ),
    ] = None
    concurrency: Annotated[
        str,
        Parameter(
            metavar="N,...",
            help="Numbers of requests at once. With more than one, the prompts are also asked by "
            "that many askers, each of which takes the next prompt when its answer is there.",
        ),
    ] = "1"
    repeat: Annotated[
        int,
        Parameter(
            validator=Number(gte=1),
            metavar="N",
            help="Runs of each policy on each prompt; the median counts.",
        ),
    ] = 1
    max_new_tokens: o.NewTokens = 64
    raw: o.Raw = False
    out: Annotated[
        Path | None,
        Parameter(
            metavar="FOLDER",
            help="Folder for results.json, plots and traces. Default: named by the time.",
        ),
    ] = None
    no_plots: Annotated[bool, flag(help="Write figures only.")] = False


def evaluate(
    *more: MoreArgument,
    rings: RingsOptions = RingsOptions(),
    holder: o.HolderOptions = o.HolderOptions(),
    asked: EvaluationOptions = EvaluationOptions(),
    sampling: SamplingOptions = SamplingOptions(),
    no_view: o.NoView = False,
    output: o.OutputOptions = o.OutputOptions(),
    cluster: ClusterFile = None,
    config: o.Config = None,
) -> None:
    """Run every policy on the same prompts, in turns; compare what they write and how fast.

    gardener eval --local 2 --data chat.jsonl code.jsonl --prompts 20 --repeat 5

    Exits with 1 if any text differs or an answer was cut short; what was measured is kept.
    """
    sampling = sampling.begun(asked.max_new_tokens)
    given = locals()
    holder.chat.tell_raw(asked.raw)
    levels = numbers(asked.concurrency, "--concurrency", "requests at once")
    drafts = _drafts(rings.draft or ["auto"], holder.drafting)
    conversations = read_conversations([*(asked.data or []), *more], asked.prompts)
    if holder.connection.max_requests is None:
        most = max(MAX_REQUESTS, *levels)
        holder = replace(holder, connection=replace(holder.connection, max_requests=most))
    settings = _settings(rings, holder, drafts)
    for each in settings.values():
        each.loop()  # report a bad profile now, not after the ring before it was measured
    if asked.policies is None:
        policies = _compared(settings, holder.bounds.window)
    else:
        policies = _named(asked.policies)
    settings = {place: replace(each, policies=policies) for place, each in settings.items()}
    plan = Plan(conversations, policies, asked.max_new_tokens, asked.repeat, asked.raw, levels)
    folder = new_folder(asked.out or Path(f"gardener-eval-{datetime.now():%Y%m%d-%H%M%S}"))
    evaluation = Evaluation(
        Results(_header({**_flat(given), "draft": list(drafts)}), plan),
        folder,
        holder.bounds.bounds(),
        sampling,
        output,
        asked.no_plots,
    )
    measure_all(settings, evaluation, no_view or output.as_json)


def _settings(
    rings: RingsOptions, holder: o.HolderOptions, drafts: Mapping[str, DraftSettings]
) -> dict[Place, RingSettings]:
    """The rings to measure. Raises UserError."""
    named = places(rings.local, holder.connection.peer, rings.simulate, rings.profile)

    def at(place: Place) -> RingSettings:
        ring = o.RingOptions(
            local=place.stages if place.kind == "local" else None,
            simulate=place.stages if place.kind == "simulate" else None,
            profile=place.profile or "loopback",
        )
        return holder.settings(ring, drafts[place.draft or next(iter(drafts))])

    return {place: at(place) for place in drafted(named, list(drafts))}


def _drafts(draft: Sequence[str], options: o.DraftOptions) -> dict[str, DraftSettings]:
    """The settings that each --draft stands for, by its text. --head and --draft-model count for
    those that may have their kind of drafter, or for all if none may. Raises UserError."""

    def meant(option: str | None, kind: str, text: str) -> str | None:
        able = [each for each in draft if {"auto", kind} & set(o.kinds_in(each))]
        return option if not able or text in able else None

    def suited(text: str) -> o.DraftOptions:
        return replace(
            options,
            head=meant(options.head, "eagle", text),
            draft_model=meant(options.draft_model, "model", text),
        )

    return {",".join(o.kinds_in(text)): suited(text).settings(text) for text in draft}


def _compared(rings: Mapping[Place, RingSettings], window: int | None) -> tuple[str, ...]:
    """The policies to run where the user names none; a line says where `alternating` is among
    them. All rings run the same ones."""
    defaults = {place: default_policy(each.crowded, window) for place, each in rings.items()}
    for place, name in defaults.items():
        if name == "alternating":
            note(f"{place}: policy {name}, because {SHARING} (--policies changes that)")
    return default_comparison(set(defaults.values()))


def _named(policies: str) -> tuple[str, ...]:
    names = tuple(o.policies(policies))
    if not names:
        raise UserError(f"--policies is empty: name some of {', '.join(POLICIES)}")
    return names


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, whichever group they are in."""
    flat: dict[str, Any] = {}
    for name, value in given.items():
        flat |= _flat(vars(value)) if is_dataclass(value) else {name: value}
    return flat


def _header(given: dict[str, Any]) -> dict[str, Any]:
    plain = {k: msgspec.to_builtins(v, enc_hook=str) for k, v in given.items()}
    return {
        "began": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(["gardener", *sys.argv[1:]]),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "settings": plain,
    }
