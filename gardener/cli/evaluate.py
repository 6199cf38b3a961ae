"""`gardener eval`: every policy on the same prompts; figures, plots, and a check of the texts."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from gardener.cli import options as o
from gardener.cli.program import Interrupted, ignore, note, result, run
from gardener.decoding.policy import (
    FLOOR,
    POLICIES,
    SHARING,
    Bounds,
    default_comparison,
    default_policy,
    make,
)
from gardener.draft.factory import DraftSettings
from gardener.errors import GardenerError, UserError
from gardener.evaluation.datasets import read_conversations
from gardener.evaluation.machine import commit, machine, versions
from gardener.evaluation.plan import Place, Plan, drafted, places
from gardener.evaluation.report import write_plots, write_traces
from gardener.evaluation.results import Difference, Failure, Results, Skipped, new_folder
from gardener.evaluation.runner import MeasuredRing, measure
from gardener.evaluation.tables import tables
from gardener.evaluation.tally import MeasuredRun
from gardener.evaluation.terminal import Teller
from gardener.rings.equipment import read_prompter
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings

SAVE_EVERY = 10.0
"""Seconds between two savings of what there is, at least."""

SAVE_SHARE = 20
"""And so many times as long as the last one took."""

WIDE = 150
"""Columns of the tables where there is no terminal."""

LocalOption = Annotated[
    str | None,
    typer.Option(
        envvar="GARDENER_LOCAL",
        metavar="N,...",
        help="Start this many stages on this machine; with several numbers, one ring after the "
        "other. Default: 2, if no other ring is named.",
    ),
]
SimulateOption = Annotated[
    str | None,
    typer.Option(
        envvar="GARDENER_SIMULATE",
        metavar="N,...",
        help="Simulate rings of so many stages under a virtual clock.",
    ),
]
ProfileOption = Annotated[
    str,
    typer.Option(
        envvar="GARDENER_PROFILE",
        metavar="NAME|FILE,...",
        help="The machines that --simulate stands for; with several, one after the other.",
    ),
]
DataOption = Annotated[
    list[Path] | None,
    typer.Option(
        help='JSONL with rows like {"turns": ["...", "..."]}, or text with one prompt a line. May '
        "be given several times. Default: a small set of Gardener's own.",
    ),
]
DraftOption = Annotated[
    list[str] | None,
    typer.Option(
        envvar="GARDENER_DRAFT",
        metavar="KIND,...",
        help="Drafters: ngram, eagle, model, none, or auto (the default), as for generate. Given "
        "several times, each ring is measured with these and with those.",
    ),
]
PoliciesOption = Annotated[
    str | None,
    typer.Option(
        help="Which to run, with commas between. Default: plain, serial, chunked, pipedec, "
        "flowspec and what generate would run: gardener, or alternating where the stages and the "
        "drafter share the cores of one machine.",
        metavar="NAME,...",
    ),
]
PromptsOption = Annotated[
    int | None, typer.Option(min=1, help="Only the first so many rows of each file.")
]
TemperatureOption = Annotated[
    float, typer.Option(help="Only 0 is there yet: the likeliest token always.")
]
RepeatOption = Annotated[
    int, typer.Option(min=1, help="Runs of each policy on each prompt; the median counts.")
]
OutOption = Annotated[
    Path | None,
    typer.Option(help="Folder for results.json, plots and traces. Default: named by the time."),
]
PlotsOption = Annotated[bool, typer.Option("--no-plots", help="Write figures only.")]
RawOption = Annotated[bool, typer.Option("--raw", help="Without the model's chat template.")]


MoreArgument = Annotated[
    list[Path] | None, typer.Argument(metavar="[FILE]...", help="As --data, without saying so.")
]


def evaluate(
    more: MoreArgument = None,
    local: LocalOption = None,
    peer: o.Peer = None,
    simulate: SimulateOption = None,
    profile: ProfileOption = "loopback",
    listen: o.Listen = "127.0.0.1:7000",
    model: o.Model = o.DEFAULT_MODEL,
    revision: o.Revision = None,
    data: DataOption = None,
    prompts: PromptsOption = None,
    policies: PoliciesOption = None,
    max_new_tokens: o.NewTokens = 64,
    temperature: TemperatureOption = 0.0,
    repeat: RepeatOption = 1,
    raw: RawOption = False,
    rows: o.Rows = None,
    window: o.Window = None,
    floor: o.Floor = FLOOR,
    dtype: o.DType = "float32",
    device: o.Device = "cpu",
    threads: o.Threads = None,
    quant: o.Quant = "none",
    draft: DraftOption = None,
    head: o.Head = None,
    draft_model: o.DraftModel = None,
    draft_dtype: o.DraftDType = "auto",
    draft_device: o.DraftDevice = "cpu",
    patience: o.Patience = 120.0,
    out: OutOption = None,
    no_plots: PlotsOption = False,
    no_view: o.NoView = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
    config: o.Config = None,
) -> None:
    """Run every policy on the same prompts, in turns; compare what they write and how fast.

    gardener eval --local 2 --data chat.jsonl code.jsonl --prompts 20 --repeat 5

    Exits with 1 if any text differs, or if an answer was cut short; what was measured is written
    all the same.
    """
    if temperature != 0:
        raise UserError(
            f"--temperature {temperature:g} cannot be had: there is only 0 yet, the likeliest token"
        )
    given = {key: value for key, value in locals().items() if key != "given"}
    drafts = _drafts(draft or ["auto"], head, draft_model, draft_dtype, draft_device)
    given["draft"] = list(drafts)
    rings = drafted(places(local, peer, simulate, profile), list(drafts))
    data_rows = read_conversations([*(data or []), *(more or [])], prompts)

    def ring(place: Place) -> RingSettings:
        return RingSettings(
            model=model,
            revision=revision,
            local=place.stages if place.kind == "local" else None,
            peer=place.peer,
            listen=listen,
            dtype=dtype,
            device=device,
            threads=threads,
            quant=quant,
            patience=patience,
            draft=drafts[place.draft or next(iter(drafts))],
            simulate=place.stages if place.kind == "simulate" else None,
            profile=place.profile or "loopback",
        )

    settings = {place: ring(place) for place in rings}
    for each in settings.values():
        each.loop()  # whatever is wrong with a profile, better now than after the ring before it
    plan = Plan(
        data_rows,
        _compared(settings, window) if policies is None else _named(policies),
        max_new_tokens,
        repeat,
        raw,
    )
    settings = {place: replace(each, policies=plan.policies) for place, each in settings.items()}
    folder = new_folder(out or Path(f"gardener-eval-{datetime.now():%Y%m%d-%H%M%S}"))
    results = Results(_header(given), plan)
    job = Job(results, folder, Bounds(rows, window, floor), verbose, as_json, no_plots)
    _evaluate(settings, job, no_view or as_json)


@dataclass(frozen=True)
class Job:
    """What one call has to do besides its rings. `quiet`: no table."""

    results: Results
    folder: Path
    sizes: Bounds
    verbose: bool
    quiet: bool
    no_plots: bool


def _drafts(
    draft: Sequence[str], head: str | None, model: str | None, dtype: str, device: str
) -> dict[str, DraftSettings]:
    """What each --draft says, by its own words. A head or a small model is for those that have a
    drafter for it, if any has. Raises UserError."""

    def meant(option: str | None, kind: str, text: str) -> str | None:
        able = [each for each in draft if {"auto", kind} & set(_kinds(each))]
        return option if not able or text in able else None

    return {
        ",".join(_kinds(text)): o.drafting(
            text, meant(head, "eagle", text), meant(model, "model", text), dtype, device
        )
        for text in draft
    }


def _kinds(draft: str) -> list[str]:
    return [kind.strip() for kind in draft.split(",") if kind.strip()] or ["none"]


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


def _evaluate(settings: dict[Place, RingSettings], job: Job, no_bar: bool) -> None:
    """All rings, one after the other; whatever happens, what was measured is written."""
    results = job.results
    runs = results.plan.runs * len(settings)
    began = time.monotonic()
    try:
        with Teller(runs, Console(stderr=True), note, no_bar) as teller:
            keeper = Keeper(teller, lambda: results.save(job.folder))
            for place, each in settings.items():
                run(_measure(place, each, job, keeper), each.loop())
        results.ended = "done"
    except GardenerError as error:
        results.ended = str(error)
        raise
    except BaseException as error:
        results.ended = "interrupted" if isinstance(error, Interrupted) else repr(error)
        raise
    finally:
        results.header["seconds"] = time.monotonic() - began
        _finish(job)
    _judge(results, job.folder / "results.json")


def _judge(results: Results, file: Path) -> None:
    """Raises GardenerError if not all is well; `file` has the particulars."""
    whole, wrong = f"of {len(results.runs)} answers", []
    if results.differences:
        wrong.append(f"the texts differ in {len(results.differences)} {whole}, see `differences`")
    if results.failures:
        wrong.append(f"{len(results.failures)} {whole} failed, see `failures`")
    if wrong:
        raise GardenerError(f"{' and '.join(wrong)} in {file}")


async def _measure(place: Place, settings: RingSettings, job: Job, keeper: "Keeper") -> None:
    keeper.say(f"{place}: {len(job.results.plan.conversations)} prompts")
    heard = keeper.say if job.verbose else ignore
    async with open_ring(settings, keeper.say, heard, keeper.progress) as (holder, folder):
        cards = [msgspec.to_builtins(card) for card in map(msgspec.structs.asdict, holder.cards)]
        ran = {name: repr(make(name, job.sizes)) for name in job.results.plan.policies}
        job.results.add_ring(place, cards, holder.drafters.names, ran, settings.facts())
        prompter = await read_prompter(settings, folder)
        ring = MeasuredRing(place, holder, prompter, lambda name: make(name, job.sizes))
        await measure(ring, job.results.plan, job.results, keeper)


class Keeper:
    """Passes on how it goes, and saves what there is now and then: between two answers, when the
    ring has nothing to do."""

    def __init__(self, teller: Teller, save: Callable[[], object]) -> None:
        self.say = teller.say
        self.progress = teller.progress
        self.skipped: Callable[[Skipped, int], None] = teller.skipped
        self.differed: Callable[[Difference], None] = teller.differed
        self.failed: Callable[[Failure], None] = teller.failed
        self._ran = teller.ran
        self._save = save
        self._next = time.monotonic() + SAVE_EVERY

    def ran(self, run: MeasuredRun) -> None:
        self._ran(run)
        begin = time.monotonic()
        if begin >= self._next:
            self._save()
            end = time.monotonic()
            self._next = end + max(SAVE_EVERY, SAVE_SHARE * (end - begin))


def _finish(job: Job) -> None:
    """Show and write all that there is. Raises UserError where it cannot be written."""
    results = job.results
    if job.quiet:
        result(json.dumps(results.brief()) + "\n")
    else:
        console = Console(width=None if sys.stdout.isatty() else WIDE)
        figures, policies = results.figures(), results.plan.policies
        console.print(tables(results.rings, figures, policies, console.width))
    results.save(job.folder)
    written = [f"traces: {len(write_traces(results, job.folder))}"]
    if not job.no_plots and results.ended != "interrupted":
        try:
            written.append(f"plots: {len(write_plots(results, job.folder))}")
        except UserError as error:
            note(str(error))
    note(f"written to {job.folder}: results.json, {', '.join(written)}")
