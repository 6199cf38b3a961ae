"""Measures rings for `gardener eval`, keeps what was found, and shows it in the end."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from gardener.cli import options as o
from gardener.cli.program import Interrupted, ignore, note, result, run
from gardener.cli.sampling import SamplingOptions
from gardener.decoding.policy import Bounds, make
from gardener.errors import GardenerError, UserError
from gardener.evaluation.askers import measure_loads
from gardener.evaluation.concurrency_tables import concurrency_tables
from gardener.evaluation.plan import Place
from gardener.evaluation.report import write_plots, write_traces
from gardener.evaluation.results import Difference, Failure, Results, Skipped
from gardener.evaluation.runner import MeasuredRing, measure
from gardener.evaluation.tables import exactness_lines, tables
from gardener.evaluation.tally import MeasuredRun
from gardener.evaluation.terminal import Teller
from gardener.protocol.cards import near_tie
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings

SAVE_EVERY = 10.0
"""The least seconds between two savings of the results."""

SAVE_SHARE = 20
"""The time between two savings is also at least this many times what the last one took."""

WIDE = 150
"""Columns of the tables where there is no terminal."""


@dataclass(frozen=True)
class Evaluation:
    """What one call has to do besides its rings. `sampling` has its seed."""

    results: Results
    folder: Path
    bounds: Bounds
    sampling: SamplingOptions
    output: o.OutputOptions
    no_plots: bool


def measure_all(
    settings: Mapping[Place, RingSettings], evaluation: Evaluation, no_bar: bool
) -> None:
    """Measure all rings, one after the other. What was measured is written whatever happens.

    Raises GardenerError where a ring failed, texts differ, or an answer was cut short.
    """
    results = evaluation.results
    runs = results.plan.runs * len(settings)
    began = time.monotonic()
    try:
        with Teller(runs, Console(stderr=True), note, no_bar) as teller:
            keeper = Keeper(teller, lambda: results.save(evaluation.folder))
            for place, each in settings.items():
                run(_measure(place, each, evaluation, keeper), each.loop())
        results.ended = "done"
    except GardenerError as error:
        results.ended = str(error)
        raise
    except BaseException as error:
        results.ended = "interrupted" if isinstance(error, Interrupted) else repr(error)
        raise
    finally:
        results.header["seconds"] = time.monotonic() - began
        finish(evaluation)
    _judge(results, evaluation.folder / "results.json")


def _judge(results: Results, file: Path) -> None:
    """Raises GardenerError if texts differ or answers failed; `file` has the details."""
    answers = len(results.runs) + sum(len(load.answers) for load in results.loads)
    whole, wrong = f"of {answers} answers", []
    if results.wrong:
        wrong.append(f"the texts differ in {len(results.wrong)} {whole}, see `differences`")
    if results.failures:
        wrong.append(f"{len(results.failures)} {whole} failed, see `failures`")
    if wrong:
        raise GardenerError(f"{' and '.join(wrong)} in {file}")


async def _measure(
    place: Place, settings: RingSettings, evaluation: Evaluation, keeper: "Keeper"
) -> None:
    keeper.say(f"{place}: {len(evaluation.results.plan.conversations)} prompts")
    heard = keeper.say if evaluation.output.verbose else ignore
    async with open_ring(settings, keeper.say, heard, keeper.progress) as opened:
        cards = [msgspec.to_builtins(card) for card in map(msgspec.structs.asdict, opened.stages)]
        ran = {
            name: repr(make(name, evaluation.bounds)) for name in evaluation.results.plan.policies
        }
        evaluation.results.add_ring(
            place,
            cards,
            opened.holder.drafters.names,
            ran,
            settings.facts(),
            near_tie(opened.stages),
            opened.exactness,
        )
        if not evaluation.results.plan.raw:
            evaluation.results.template = opened.prompter.template
        results, asked = evaluation.results, evaluation.sampling
        say = ignore if len(results.rings) > 1 else keeper.say  # it is the same for all of them
        results.sampling = opened.settled(asked.sampling(opened.folder, say), asked.ignore_eos)
        ring = MeasuredRing(
            place,
            opened.holder,
            opened.prompter,
            lambda name: make(name, evaluation.bounds),
            results.sampling,
            asked.ignore_eos,
        )
        questions = await measure(ring, results.plan, results, keeper)
        await measure_loads(ring, results.plan, questions, results, keeper)


class Keeper:
    """Passes progress on to the user, and saves the results from time to time: between two answers,
    when the ring has nothing to do."""

    def __init__(self, teller: Teller, save: Callable[[], object]) -> None:
        self.say = teller.say
        self.progress = teller.progress
        self.skipped: Callable[[Skipped, int], None] = teller.skipped
        self.differed: Callable[[Difference], None] = teller.differed
        self.failed: Callable[[Failure], None] = teller.failed
        self.expects = teller.expects
        self.answered = teller.answered
        self._ran = teller.ran
        self._save = save
        self._next = time.monotonic() + SAVE_EVERY

    def ran(self, run: MeasuredRun) -> None:
        self._ran(run)
        self.loaded()

    def loaded(self) -> None:
        """The ring has nothing to do: save, if it is time."""
        begin = time.monotonic()
        if begin >= self._next:
            self._save()
            end = time.monotonic()
            self._next = end + max(SAVE_EVERY, SAVE_SHARE * (end - begin))


def finish(evaluation: Evaluation) -> None:
    """Show and write the results. Raises UserError where they cannot be written."""
    results = evaluation.results
    if evaluation.output.as_json:
        result(json.dumps(results.brief()) + "\n")
    else:
        console = Console(width=None if sys.stdout.isatty() else WIDE)
        figures, policies = results.figures(), results.plan.policies
        console.print(tables(results.rings, figures, policies, console.width))
        if several := results.concurrency():
            console.print(concurrency_tables(several))
        for line in exactness_lines(results.rings):
            console.print(line, highlight=False, markup=False)
    results.save(evaluation.folder)
    written = [f"traces: {len(write_traces(results, evaluation.folder))}"]
    if not evaluation.no_plots and results.ended != "interrupted":
        try:
            written.append(f"plots: {len(write_plots(results, evaluation.folder))}")
        except UserError as error:
            note(str(error))
    note(f"written to {evaluation.folder}: results.json, {', '.join(written)}")
