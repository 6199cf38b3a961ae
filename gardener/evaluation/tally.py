"""Figures of an evaluation from its single runs.

Of each prompt the median over the repetitions counts, and of a data set the mean over its prompts.
A speed-up is a ratio per prompt, of medians, then the mean over the prompts: so no prompt weighs
more for being fast. Compared are only prompts that every policy has answered.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from gardener.evaluation.passes import Shares, Split

BASES = ("plain", "serial", "chunked")
"""Policies that others are compared with."""

OVERALL = "overall"

Figures: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One answer. Times in seconds; a turn and a repetition count from 1.

    first_token: until the first emission; decode: from there to the last one; at_once: tokens of
    the first emission, which belong to the prefill. segments: those with rows of the tree, and
    judged those of them that came back after the first token. rows, wasted, accepted: see
    `decoding.Counts`. details: all that the holder knows about the run.
    """

    place: str
    data: str
    line: int
    turn: int
    policy: str
    repeat: int
    prompt_tokens: int
    tokens: int
    at_once: int
    first_token: float
    decode: float
    segments: int
    judged: int
    rows: int
    wasted: int
    accepted: int
    reason: str
    error: str | None = None
    split: Split | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[str, int, int]:
        return self.data, self.line, self.turn

    @property
    def rate(self) -> float | None:
        """Tokens per second of decoding; None if all tokens came at once."""
        later = self.tokens - self.at_once
        return later / self.decode if later > 0 and self.decode > 0 else None

    @property
    def whole_rate(self) -> float:
        """Tokens per second from end to end, the prompt's computation included."""
        total = self.first_token + self.decode
        return self.tokens / total if total > 0 else 0.0

    @property
    def per_tick(self) -> float:
        """Tokens emitted per segment with rows of the tree."""
        return self.tokens / max(self.segments, 1)

    @property
    def tick(self) -> float:
        """Seconds of decoding per segment that came back meanwhile."""
        return self.decode / max(self.judged, 1)

    def as_dict(self) -> dict[str, Any]:
        figures = {"tokens_per_second": self.rate, "end_to_end": self.whole_rate}
        found = {**asdict(self), **figures, "split": None}
        if self.split is not None:
            shares = [each._asdict() for each in self.split.shares]
            found["split"] = {
                "seconds": self.split.seconds,
                "machines": shares,
                "missed": self.split.missed,
            }
        return found


def summary(runs: Sequence[Run], policies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of one ring: for each data set and overall the number of prompts and each policy's figures.

    "prompts" are those that all policies have answered, "rated" those of them where every answer
    took more than one emission, so that it has a speed.
    """
    sets = list(dict.fromkeys(run.data for run in runs))
    found = {name: _summary([r for r in runs if r.data == name], policies) for name in sets}
    if len(sets) != 1:
        found[OVERALL] = _summary(runs, policies)
    return {name: figures for name, figures in found.items() if figures["prompts"]}


_ByPolicy: TypeAlias = dict[str, list[Run]]


def _summary(runs: Sequence[Run], policies: Sequence[str]) -> dict[str, Any]:
    prompts: dict[tuple[str, int, int], _ByPolicy] = {}
    for run in runs:
        if run.error is None:
            prompts.setdefault(run.prompt, {}).setdefault(run.policy, []).append(run)
    answered = [each for each in prompts.values() if all(name in each for name in policies)]
    rated = [each for each in answered if all(r.rate for name in policies for r in each[name])]
    return {
        "prompts": len(answered),
        "rated": len(rated),
        "policies": {name: _figures(name, policies, answered, rated) for name in policies},
    }


def _figures(
    name: str, policies: Sequence[str], answered: Sequence[_ByPolicy], rated: Sequence[_ByPolicy]
) -> Figures:
    """Of one policy. Speeds in tokens per second, times in seconds; None where there is nothing to
    average."""
    all_runs = [run for each in answered for run in each[name]]
    bases = [base for base in BASES if base in policies]
    return {
        "tokens_per_second": _mean(_medians(rated, name, _rate)),
        "end_to_end": _mean(_medians(answered, name, lambda run: run.whole_rate)),
        "speedup": {base: _ratios(rated, name, base, _rate) for base in bases},
        "end_to_end_speedup": {
            base: _ratios(answered, name, base, lambda run: run.whole_rate) for base in bases
        },
        "tokens_per_tick": _mean(_medians(answered, name, lambda run: run.per_tick)),
        "accepted_per_segment": _mean(
            _medians(answered, name, lambda run: run.accepted / max(run.segments, 1))
        ),
        "wasted": sum(r.wasted for r in all_runs) / max(sum(r.rows for r in all_runs), 1),
        "first_token": _mean(_medians(answered, name, lambda run: run.first_token)),
        "tick": _tick(_mean(_medians(rated, name, lambda run: run.tick)), all_runs),
    }


def _rate(run: Run) -> float:
    return run.rate or 0.0


def _medians(
    prompts: Sequence[_ByPolicy], name: str, figure: Callable[[Run], float]
) -> list[float]:
    return [statistics.median(figure(run) for run in each[name]) for each in prompts]


def _ratios(
    prompts: Sequence[_ByPolicy], name: str, base: str, figure: Callable[[Run], float]
) -> dict[str, float | None]:
    mine, theirs = _medians(prompts, name, figure), _medians(prompts, base, figure)
    ratios = [m / t for m, t in zip(mine, theirs, strict=True) if t > 0]
    return {"mean": _mean(ratios), "worst": min(ratios, default=None)}


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _tick(seconds: float | None, runs: Sequence[Run]) -> Figures:
    """The mean tick, what each machine did with it (shares of 1), the holder first, and the share
    in which the token after a miss was waited for: shares of all the time that was looked at in
    the runs."""
    splits = [run.split for run in runs if run.split is not None]
    machines: list[dict[str, float]] = []
    whole = sum(each.seconds for each in splits)
    for parts in zip(*(each.shares for each in splits), strict=True) if whole else ():
        sums = zip(Shares._fields, zip(*parts, strict=True), strict=True)
        machines.append({part: sum(values) / whole for part, values in sums})
    missed = sum(each.missed for each in splits) / whole if whole else None
    return {"seconds": seconds, "machines": machines, "missed": missed}
