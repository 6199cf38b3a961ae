"""What a run came to: a page, a picture and the same as JSON, beside the head."""

import json
import platform
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import gardener
from gardener.draft.calibration import Calibration, expected_error
from gardener.draft.train.evaluate import Observations
from gardener.draft.train.run import TrainingRun
from gardener.draft.train.vocabulary import coverage
from gardener.runtime.files import whole_file, write_text

CALIBRATION = "calibration.json"
FACTS = "report.json"


def finish(run: TrainingRun, model: str, command: str, template: str | None = None) -> None:
    """Judge the head on the held-out dialogues, calibrate it, and write the report: without the
    picture where there is no matplotlib. `template`: the chat template of the dialogues; None: they
    have no turns. Raises UserError, or Stopped.

    The calibration is fitted on one half of the dialogues and its error measured on the other.
    """
    seen = run.judge()
    facts = _facts(run, seen, model, _commands(run.out / FACTS, command))
    facts["template"] = template
    facts["calibration"] = _calibrate(run.out / CALIBRATION, seen)
    drawn = find_spec("matplotlib") is not None
    write(run.out, facts, _page(facts, drawn))
    if drawn:
        draw(run.out / "acceptance.png", facts)


def write(folder: Path, facts: dict[str, Any], page: str) -> None:
    """The report twice: for programs and for people. Raises UserError."""
    write_text(folder / FACTS, json.dumps(facts, indent=2) + "\n")
    write_text(folder / "report.md", page)


def _calibrate(path: Path, seen: Observations) -> dict[str, float]:
    """Fit and write the map; returns the expected calibration error without and with it."""
    half = len(seen.depth) // 2
    first, second = seen.part(0, half), seen.part(half, len(seen.depth))
    trial = Calibration.fit(*first.flat())
    log_q, rank, depth, hit = second.flat()
    error = {
        "error_before": expected_error(np.exp(log_q), hit),
        "error_after": expected_error(trial.probabilities(log_q, rank, depth), hit),
    }
    Calibration.fit(*seen.flat()).write(path)
    return error


def _commands(file: Path, command: str) -> list[str]:
    """Those that ended with a report in this file, the oldest first, and this one."""
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))["commands"]
    except (OSError, ValueError, KeyError, TypeError):
        return [command]  # a new run, or a report that cannot be read: it is written anew
    return [*(each for each in earlier if each != command), command]


def _facts(run: TrainingRun, seen: Observations, model: str, commands: list[str]) -> dict[str, Any]:
    progress = run.progress
    held_out = run.held_out()
    return {
        "model": model,
        "commands": commands,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {
            "gardener": gardener.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "plan": run.plan.facts() | {"taps": run.taps},
        "hours": round(progress.seconds / 3600, 2),
        "tokens_written": progress.written,
        "tokens_trained": progress.tokens,
        "held_out_tokens": round(seen.share * sum(len(text.tokens) for text in held_out)),
        "vocabulary_coverage": coverage(held_out, run.kept),
        "losses": progress.losses,
        "first_guess_right": seen.curve(1),
        "one_of_four_right": seen.curve(4),
        "curve": progress.curve,
    }


def _page(facts: dict[str, Any], drawn: bool) -> str:
    first, four = facts["first_guess_right"], facts["one_of_four_right"]
    rows = "\n".join(
        f"| {depth} | {a:.1%} | {b:.1%} |"
        for depth, (a, b) in enumerate(zip(first, four, strict=True), 1)
    )
    last = facts["losses"][-1] if facts["losses"] else []
    losses = ", ".join(f"{value:.2f}" for value in last)
    picture = "\n![acceptance by depth](acceptance.png)\n" if drawn else ""
    commands = "\n".join(f"    {command}" for command in facts["commands"])
    return f"""# A draft head for {facts["model"]}

{commands}

{facts["hours"]} hours on {facts["machine"]}, {facts["date"]}; gardener \
{facts["versions"]["gardener"]}, torch {facts["versions"]["torch"]}.

* Dialogues: {facts["tokens_written"]:,} tokens, written by the model itself, trained on \
{facts["tokens_trained"] / max(facts["tokens_written"], 1):.1f} times in the mean.
* Cross-entropy of each pass on the last chunk: {losses}.
* Draft vocabulary: {facts["plan"]["vocab"]:,} tokens, which are \
{facts["vocabulary_coverage"]:.1%} of what the model writes.
* Expected calibration error: {facts["calibration"]["error_before"]:.1%} before, \
{facts["calibration"]["error_after"]:.1%} after calibration.

How often the guesses were right on {facts["held_out_tokens"]:,} tokens of dialogues that were not
trained on, by the number of tokens since the last true feature:

| depth | the first guess | one of four |
|---|---|---|
{rows}
{picture}"""


def draw(path: Path, facts: dict[str, Any]) -> None:
    """Acceptance by depth, and how it grew, with matplotlib. Raises UserError."""
    from matplotlib.figure import Figure  # late: it may not be there

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    by_depth, over_time = figure.subplots(1, 2, sharey=True)
    depths = range(1, len(facts["first_guess_right"]) + 1)
    by_depth.plot(depths, facts["first_guess_right"], marker="o", label="first guess")
    by_depth.plot(depths, facts["one_of_four_right"], marker="o", label="one of four")
    by_depth.set(xlabel="tokens since the last true feature", ylabel="right", ylim=(0, 1))
    by_depth.legend()
    chunks = [at for at, _ in facts["curve"]]
    for depth in (1, 3, 5, 10):
        values = [curve[depth - 1] for _, curve in facts["curve"]]
        over_time.plot(chunks, values, label=f"depth {depth}")
    over_time.set(xlabel="chunks of dialogues", title="first guess, held-out dialogues")
    over_time.legend()
    with whole_file(path) as draft:
        figure.savefig(draft, dpi=110)
