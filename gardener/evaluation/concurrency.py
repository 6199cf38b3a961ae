"""Figures of several requests at once: how much a ring writes in all, and what each request gets.

So many askers take the prompts in turn, each one the next prompt as soon as its answer is there (a
closed loop). The time begins with the first question and ends with the last answer, so that the
last answers, which come when some askers have nothing left to ask, count as they are. One request
at a time is not measured again: its figures are made of the runs in which each prompt was asked
alone.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from gardener.evaluation.tally import MeasuredRun
from gardener.holder.figures import Figures
from gardener.holder.rates import REFERENCE

Prompt: TypeAlias = tuple[str, int, int]
"""Data set, line in it, and turn."""


@dataclass(frozen=True, slots=True)
class LoadAnswer:
    """One answer among others. Seconds begin when this one was asked for; `asked` is when that was,
    since the load began."""

    data: str
    line: int
    turn: int
    asked: float
    tokens: int
    first_token: float
    seconds: float
    reason: str
    error: str | None = None

    @classmethod
    def of(
        cls, prompt: Prompt, asked: float, figures: Figures, reason: str, error: str | None
    ) -> Self:
        """The answer to a prompt with these figures."""
        times = (figures.first_token, figures.total)
        return cls(*prompt, asked, figures.tokens, *times, reason, error)

    @property
    def prompt(self) -> Prompt:
        return self.data, self.line, self.turn

    @property
    def rate(self) -> float:
        """Tokens per second, the computation of the prompt and all waiting included."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """All prompts under one policy, asked by `requests` askers. `seconds`: from the first question
    to the last answer. `repeat` from 1."""

    place: str
    policy: str
    requests: int
    repeat: int
    seconds: float
    answers: tuple[LoadAnswer, ...]

    @property
    def whole(self) -> list[LoadAnswer]:
        """The answers that were not cut short."""
        return [each for each in self.answers if each.error is None]

    @property
    def rate(self) -> float:
        """Tokens per second of all answers together."""
        return sum(each.tokens for each in self.whole) / self.seconds if self.seconds > 0 else 0.0


def alone(runs: Sequence[MeasuredRun], policy: str) -> list[Load]:
    """One request at a time, made of the runs of one ring, by repetition."""
    found = []
    for repeat in sorted({run.repeat for run in runs if run.policy == policy}):
        answers, now = [], 0.0
        for run in runs:
            if (run.policy, run.repeat) != (policy, repeat):
                continue
            of = run.figures
            answers.append(LoadAnswer.of(run.prompt, now, of, run.reason, run.error))
            now += of.total
        found.append(Load(runs[0].place, policy, 1, repeat, now, tuple(answers)))
    return found


def summary(
    loads: Sequence[Load],
    runs: Sequence[MeasuredRun],
    policies: Sequence[str],
    levels: Sequence[int],
) -> dict[str, dict[str, dict[str, Any]]]:
    """The figures of one ring, by policy and number of requests (as text, for JSON).

    tokens_per_second  of all requests together: the median over the repetitions
    per_request        tokens per second of one request, from its question to its last token
    first_token        seconds from the question to the first token; p95 is the nearest rank
    fairness           see `fairness`
    of_plain           tokens_per_second as a part of what `plain` reaches with as many requests
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for policy in policies:
        single = alone(runs, policy)
        base = _rates(single)
        for level in levels:
            chosen = single if level == 1 else _of(loads, policy, level)
            if any(load.whole for load in chosen):
                found.setdefault(policy, {})[str(level)] = _figures(chosen, base)
    plain = found.get(REFERENCE, {})
    for by_level in found.values():
        for name, figures in by_level.items():
            base_rate = plain.get(name, {}).get("tokens_per_second")
            figures["of_plain"] = figures["tokens_per_second"] / base_rate if base_rate else None
    return found


def _of(loads: Sequence[Load], policy: str, level: int) -> list[Load]:
    return [load for load in loads if (load.policy, load.requests) == (policy, level)]


def _figures(loads: Sequence[Load], base: Mapping[Prompt, float]) -> dict[str, Any]:
    answers = [each for load in loads for each in load.whole]
    rates = [each.rate for each in answers]
    firsts = sorted(each.first_token for each in answers)
    fair = [fairness(load.whole, base) for load in loads]
    known = [each for each in fair if each is not None]
    return {
        "answers": len(answers),
        "tokens": sum(each.tokens for each in answers),
        "seconds": statistics.fmean(load.seconds for load in loads),
        "tokens_per_second": statistics.median(load.rate for load in loads),
        "per_request": {"mean": statistics.fmean(rates), "worst": min(rates)},
        "first_token": {
            "mean": statistics.fmean(firsts),
            "p95": firsts[math.ceil(0.95 * len(firsts)) - 1],
            "worst": firsts[-1],
        },
        "fairness": statistics.fmean(known) if known else None,
    }


def fairness(answers: Sequence[LoadAnswer], alone: Mapping[Prompt, float]) -> float | None:
    """Jain's index of what the requests got: `sum(x)**2 / (n * sum(x**2))`, which is 1 where all x
    are equal and 1/n where one request gets everything (Jain, Chiu and Hawe 1984).

    x is the speed of a request as a part of the speed that the same prompt had alone under the same
    policy (`alone`, in tokens per second), since some texts are easier to guess than others, and
    some are shorter. None if nothing of it is known.
    """
    parts = [each.rate / alone[each.prompt] for each in answers if alone.get(each.prompt)]
    squares = sum(part * part for part in parts)
    return sum(parts) ** 2 / (len(parts) * squares) if squares else None


def _rates(loads: Sequence[Load]) -> dict[Prompt, float]:
    """The speed of each prompt, the median over the repetitions."""
    found: dict[Prompt, list[float]] = {}
    for load in loads:
        for each in load.whole:
            found.setdefault(each.prompt, []).append(each.rate)
    return {prompt: statistics.median(rates) for prompt, rates in found.items()}
