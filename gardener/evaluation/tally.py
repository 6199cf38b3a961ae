"""The figures of an evaluation, from its runs.

A prompt counts with the median over its repetitions, and a data set with the mean and the median
over its prompts. A speed-up is first computed for each prompt, as a ratio of medians, then
averaged, so that no prompt weighs more because it is fast. Only prompts that every policy has
answered are compared. Decoding begins for all policies at the end of the same prefill (see
`holder/rates.py`)."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from gardener.evaluation.timeline import Breakdown, Shares
from gardener.holder.figures import Figures
from gardener.holder.rates import Prefill, prefill

BASES = ("plain", "serial", "chunked")
"""The policies that plots compare the others with."""

OVERALL = "overall"

Summary: TypeAlias = dict[str, Any]
"""Figures by name, as they go into JSON."""

Key: TypeAlias = tuple[str, str, int, int]
"""Ring, data set, line in it, and turn: all runs with the same key share one prefill."""


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One answer of an evaluation, and what it was the answer to.

    place: the ring. data, line, turn: the prompt. policy: what the plan calls the policy that ran.
    repeat: which of the repetitions this was, from 1, as `turn` is. period: if the answer repeats
    itself up to its end, the number of tokens of what it repeats.
    """

    place: str
    data: str
    line: int
    turn: int
    policy: str
    repeat: int
    figures: Figures
    reason: str
    error: str | None = None
    period: int | None = None
    breakdown: Breakdown | None = None

    @property
    def prompt(self) -> tuple[str, int, int]:
        return self.data, self.line, self.turn

    @property
    def key(self) -> Key:
        return self.place, *self.prompt

    def as_dict(self, prefill: Prefill | None) -> dict[str, Any]:
        """A line of `runs` in results.json. `prefill`: that of its prompt, None if not known."""
        of = self.figures
        return {
            "place": self.place,
            "data": self.data,
            "line": self.line,
            "turn": self.turn,
            "policy": self.policy,
            "repeat": self.repeat,
            "prompt_tokens": of.prompt_tokens,
            "tokens": of.tokens,
            "first_token": of.first_token,
            "decode": of.decode,
            "segments": of.counts.segments,
            "judged": of.stage_times.segments,
            "rows": of.counts.rows,
            "wasted": of.counts.wasted,
            "accepted": of.counts.accepted,
            "reason": self.reason,
            "error": self.error,
            "period": self.period,
            "split": None if self.breakdown is None else self.breakdown.as_dict(),
            "details": of.statistics(),
            "prefill": None if prefill is None else prefill.seconds,
            "prefill_of": None if prefill is None else prefill.policy,
            "tokens_per_second": None if prefill is None else of.rate(prefill.seconds),
            "end_to_end": of.end_to_end,
        }


_ByPolicy: TypeAlias = dict[str, list[MeasuredRun]]


def prefills(runs: Sequence[MeasuredRun]) -> dict[Key, Prefill]:
    """The prefill of each prompt in each ring, from the answers that were not cut short."""
    return {
        key: prefill(
            {name: [run.figures.first_token for run in each] for name, each in policies.items()}
        )
        for key, policies in _by_prompt(runs).items()
    }


def _by_prompt(runs: Sequence[MeasuredRun]) -> dict[Key, _ByPolicy]:
    found: dict[Key, _ByPolicy] = {}
    for run in runs:
        if run.error is None:
            found.setdefault(run.key, {}).setdefault(run.policy, []).append(run)
    return found


def summary(runs: Sequence[MeasuredRun], policies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The figures of one ring: for each data set, and overall if there are several.

    A data set has the number of prompts and the figures of each policy, then the same for the
    prompts whose answers repeat themselves ("repeating", see `repeats.py`) and for the others.
    "prompts" are those that all policies have answered, "rated" those of them where every answer
    has a speed, which takes a token after the first one. "prefill" tells how often which policy's
    first token ended it, and its seconds.
    """
    sets = list(dict.fromkeys(run.data for run in runs))
    found = {name: _groups([r for r in runs if r.data == name], policies) for name in sets}
    if len(sets) != 1:
        found[OVERALL] = _groups(runs, policies)
    return {name: figures for name, figures in found.items() if figures["prompts"]}


def _groups(runs: Sequence[MeasuredRun], policies: Sequence[str]) -> dict[str, Any]:
    taken = prefills(runs)
    prompts = [
        _Prompt(taken[key], each)
        for key, each in _by_prompt(runs).items()
        if all(name in each for name in policies)
    ]
    first = policies[0]
    again = [each for each in prompts if each.runs[first][0].period is not None]
    others = [each for each in prompts if each.runs[first][0].period is None]
    return {
        **_summary(prompts, policies),
        "repeating": _summary(again, policies),
        "not_repeating": _summary(others, policies),
    }


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt that all policies have answered, and its runs by policy."""

    prefill: Prefill
    runs: _ByPolicy

    def median(self, name: str, figure: Callable[[Figures], float]) -> float:
        return statistics.median(figure(run.figures) for run in self.runs[name])

    def rate(self, name: str) -> float:
        """Tokens per second of decoding, 0 if there is no token but the first."""
        return self.median(name, lambda of: of.rate(self.prefill.seconds) or 0.0)

    def whole_rate(self, name: str) -> float:
        return self.median(name, lambda of: of.end_to_end)

    @property
    def rated(self) -> bool:
        """Whether every answer has a speed."""
        return all(
            run.figures.rate(self.prefill.seconds) for runs in self.runs.values() for run in runs
        )


def _summary(prompts: Sequence[_Prompt], policies: Sequence[str]) -> dict[str, Any]:
    rated = [each for each in prompts if each.rated]
    whose = [each.prefill.policy for each in prompts]
    return {
        "prompts": len(prompts),
        "rated": len(rated),
        "prefill": {
            "of": {name: whose.count(name) for name in policies if name in whose},
            "seconds": _middle([each.prefill.seconds for each in prompts]),
        },
        "policies": {name: _figures(name, policies, prompts, rated) for name in policies},
    }


def _figures(
    name: str, policies: Sequence[str], prompts: Sequence[_Prompt], rated: Sequence[_Prompt]
) -> Summary:
    """The figures of one policy: tokens per second, seconds, and None where there is nothing to
    average."""
    all_runs = [run for each in prompts for run in each.runs[name]]

    def mean(figure: Callable[[Figures], float], of: Sequence[_Prompt] = prompts) -> float | None:
        return _mean([each.median(name, figure) for each in of])

    def speeds(rate: Callable[[_Prompt, str], float], of: Sequence[_Prompt]) -> Summary:
        return _middle([rate(each, name) for each in of])

    def ratios(rate: Callable[[_Prompt, str], float], of: Sequence[_Prompt]) -> Summary:
        pairs = {base: [(rate(each, name), rate(each, base)) for each in of] for base in policies}
        return {base: _ratios(each) for base, each in pairs.items()}

    rows = sum(run.figures.counts.rows for run in all_runs)
    wasted = sum(run.figures.counts.wasted for run in all_runs)
    lasting = [each for each in rated if all(run.figures.decode > 0 for run in each.runs[name])]
    return {
        "tokens_per_second": speeds(_Prompt.rate, rated),
        "end_to_end": speeds(_Prompt.whole_rate, prompts),
        "speedup": ratios(_Prompt.rate, rated),
        "end_to_end_speedup": ratios(_Prompt.whole_rate, prompts),
        "tokens_per_tick": mean(lambda of: of.tokens_per_segment),
        "rows_per_segment": mean(lambda of: of.rows_per_segment),
        "accepted_per_segment": mean(lambda of: of.counts.accepted / max(of.counts.segments, 1)),
        "wasted": wasted / max(rows, 1),
        "first_token": mean(lambda of: of.first_token),
        "tick": _tick(mean(lambda of: of.tick, lasting), all_runs),
    }


def _ratios(pairs: Sequence[tuple[float, float]]) -> Summary:
    ratios = [mine / theirs for mine, theirs in pairs if theirs > 0]
    return {**_middle(ratios), "worst": min(ratios, default=None)}


def _middle(values: Sequence[float]) -> Summary:
    return {"mean": _mean(values), "median": statistics.median(values) if values else None}


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _tick(seconds: float | None, runs: Sequence[MeasuredRun]) -> Summary:
    """The mean tick; what part of it each machine spent on what, the holder first; and the part in
    which the token after a miss was waited for. The parts are of all the time that the breakdowns
    of the runs look at."""
    known = [run.breakdown for run in runs if run.breakdown is not None]
    machines: list[dict[str, float]] = []
    whole = sum(each.seconds for each in known)
    for parts in zip(*(each.shares for each in known), strict=True) if whole else ():
        sums = zip(Shares._fields, zip(*parts, strict=True), strict=True)
        machines.append({part: sum(values) / whole for part, values in sums})
    missed = sum(each.missed for each in known) / whole if whole else None
    return {"seconds": seconds, "machines": machines, "missed": missed}
