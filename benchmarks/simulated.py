"""Measures variants of a policy, its drafters or the nodes, each in simulated rings of its own.

They are measured by the code of `gardener eval --simulate`, which also compares their texts. Every
variant begins with fresh drafters and the same jitter, so that none of them learns from another.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console

from benchmarks.machine import machine
from gardener.cli.options import DEFAULT_MODEL, DraftOptions
from gardener.cli.program import note
from gardener.decoding.policy import Bounds, Gardener, Policy
from gardener.draft.drafter import Drafter
from gardener.draft.factory import DraftSettings, drafters
from gardener.draft.resolve import resolve_head
from gardener.errors import GardenerError
from gardener.evaluation.datasets import read_conversations
from gardener.evaluation.plan import Place, Plan, places
from gardener.evaluation.results import Results
from gardener.evaluation.runner import MeasuredRing
from gardener.evaluation.runner import measure as ask
from gardener.evaluation.tally import OVERALL, MeasuredRun, prefills
from gardener.evaluation.terminal import Teller
from gardener.holder.holder import Holder
from gardener.holder.prompter import Prompter
from gardener.model.checkpoint.resolve import resolve
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.loop import Loop
from gardener.rings.simulate.profile import Profile, read_profile
from gardener.rings.simulate.ring import SimulatedModel, simulated_ring
from gardener.rings.simulate.targets import Targets
from gardener.stages.node import StageNode


def unchanged(holder: Holder, library: Library) -> Policy:
    """The policy `gardener` as it is."""
    return Gardener(Bounds())


@dataclass(frozen=True)
class Variant:
    """policy: makes one for an answer of this holder, which is recorded in this library. drafters:
    changes those that the options name. node: the class of the stages' nodes."""

    name: str
    policy: Callable[[Holder, Library], Policy] = unchanged
    drafters: Callable[[Sequence[Drafter]], Sequence[Drafter]] = list
    node: type[StageNode] = StageNode


FULL = Variant("gardener")


def parser(about: str) -> argparse.ArgumentParser:
    """Options as those of `gardener eval`; the defaults are what the docs report."""
    made = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", default=DEFAULT_MODEL)
    made.add_argument("--draft", default="auto", metavar="KIND,...")
    made.add_argument("--head", help="a head instead of the one that is shipped")
    made.add_argument("--data", type=Path, nargs="+", help="JSONL files with `turns`")
    made.add_argument("--prompts", type=int, default=20, help="of each file")
    made.add_argument("--max-new-tokens", type=int, default=128)
    made.add_argument("--simulate", default="4", metavar="N,...")
    made.add_argument("--profile", default="jetson-7b", metavar="NAME|FILE,...")
    made.add_argument("--json", action="store_true")
    return made


@dataclass(frozen=True)
class Bench:
    """What all rings have in common."""

    folder: Path
    prompter: Prompter
    draft: DraftSettings
    plan: Plan
    teller: Teller

    async def run(self, place: Place, profile: Profile, variant: Variant, into: Results) -> None:
        """One variant in one ring, on a loop of its own."""
        found = drafters(self.draft, self.folder, lambda name: resolve_head(name, note), Path)
        chosen = variant.drafters(found)
        taps = next((drafter.taps for drafter in chosen if drafter.taps), ())
        targets = Targets(self.folder, self.prompter.eos, taps, note)
        shape = targets.shape
        model = SimulatedModel(shape.layers, shape.width, targets.fingerprint)
        assert place.stages is not None
        with patch("gardener.rings.simulate.ring.StageNode", variant.node):
            standing = simulated_ring(place.stages, profile, targets.library, model, chosen)
            async with standing as ring:
                ring.holder.prepare = targets.prepare
                asked = MeasuredRing(
                    place,
                    ring.holder,
                    self.prompter,
                    lambda name: variant.policy(ring.holder, targets.library),
                )
                await ask(asked, replace(self.plan, policies=(variant.name,)), into, self.teller)


def measure(
    arguments: argparse.Namespace, variants: Sequence[Variant]
) -> dict[str, list[MeasuredRun]]:
    """All variants in all rings that the arguments name: the answers, by ring.

    Raises GardenerError, also where texts differ.
    """
    rings = {
        place: read_profile(place.profile or "")
        for place in places(None, None, arguments.simulate, arguments.profile)
    }
    rows = read_conversations(arguments.data or (), arguments.prompts)
    plan = Plan(rows, tuple(each.name for each in variants), arguments.max_new_tokens, repeat=1)
    folder = resolve(arguments.model, None, say=note)
    draft = DraftOptions(head=arguments.head, draft_dtype="float32").settings(arguments.draft)
    with Teller(plan.runs * len(rings), Console(stderr=True), note, False) as teller:
        bench = Bench(folder, Prompter(folder), draft, plan, teller)
        return {
            str(place): _runs(bench, place, profile, variants) for place, profile in rings.items()
        }


def _runs(
    bench: Bench, place: Place, profile: Profile, variants: Sequence[Variant]
) -> list[MeasuredRun]:
    results = Results({}, bench.plan)
    for variant in variants:
        with asyncio.Runner(loop_factory=partial(Loop, profile.seed)) as runner:
            runner.run(bench.run(place, profile, variant, results))
    if results.differences:
        raise GardenerError(f"{place}: the texts differ in {len(results.differences)} answers")
    for run in results.runs:
        if run.error is not None:
            raise GardenerError(f"{place}, {run.policy}: {run.error}")
    return results.runs


# --- figures -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Speeds:
    """One variant on one data set: tokens per second of decoding, their ratio to those of another
    variant, both as means over prompts, and the worst ratio."""

    tokens_per_second: float
    ratio: float
    worst: float


def by_data(runs: Sequence[MeasuredRun]) -> dict[str, dict[str, dict[str, float]]]:
    """Data set -> variant -> prompt -> tokens per second of decoding, after one prefill for all
    variants; only of prompts for which every variant has a speed. With several sets, there is one
    of all."""
    names = {run.policy for run in runs}
    found: dict[str, dict[str, dict[str, float]]] = {}
    taken = prefills(runs)
    for run in runs:
        rate = run.figures.rate(taken[run.key].seconds)
        if rate is not None:
            for data in (run.data, OVERALL):
                prompts = found.setdefault(data, {}).setdefault(run.policy, {})
                prompts[f"{run.data} {run.line} {run.turn}"] = rate
    if len(found) == 2:
        del found[OVERALL]
    return {
        data: {
            name: {p: s for p, s in speeds.items() if all(p in sets.get(n, {}) for n in names)}
            for name, speeds in sets.items()
        }
        for data, sets in sorted(found.items(), key=lambda pair: pair[0] == OVERALL)
    }


def figures(mine: dict[str, float], theirs: dict[str, float]) -> Speeds | None:
    """The speeds by prompt against others on the same prompts; None if there are none."""
    if not mine:
        return None
    ratios = [speed / theirs[prompt] for prompt, speed in mine.items()]
    return Speeds(statistics.fmean(mine.values()), statistics.fmean(ratios), min(ratios))


def report(
    arguments: argparse.Namespace,
    variants: Sequence[Variant],
    judge: Callable[[Sequence[MeasuredRun]], dict[str, dict[str, Speeds]]],
    show: Callable[[str, dict[str, dict[str, Speeds]]], None],
) -> None:
    """Measure and print. `judge`: from the runs of a ring to figures by data set and name; `show`
    prints them."""
    try:
        found = {ring: judge(runs) for ring, runs in measure(arguments, variants).items()}
    except GardenerError as error:
        sys.exit(f"error: {error}")
    if arguments.json:
        print(json.dumps({"machine": machine(), "rings": _plain(found)}, indent=2))
        return
    for ring, sets in found.items():
        show(ring, sets)


def _plain(found: dict[str, dict[str, dict[str, Speeds]]]) -> dict[str, Any]:
    return {
        ring: {
            data: {name: asdict(each) for name, each in named.items()}
            for data, named in sets.items()
        }
        for ring, sets in found.items()
    }
