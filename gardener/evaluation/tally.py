"""Figures of an evaluation from its single runs.

Of each prompt the median over the repetitions counts, and of a data set the mean and the median
over its prompts. A speed-up is a ratio per prompt, of medians, then mean and median over the
prompts: so no prompt weighs more for being fast. Compared are only prompts that every policy has
answered. Decoding begins for all policies at the end of the same prefill (`rates.py`).
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from gardener.evaluation.passes import Shares, Split
from gardener.holder.rates import Prefill, decoding_rate, prefill

BASES = ("plain", "serial", "chunked")
"""Policies that plots compare others with."""

OVERALL = "overall"

Figures: TypeAlias = dict[str, Any]

Key: TypeAlias = tuple[str, str, int, int]
"""Ring, data set, line in it, turn: what has one prefill."""


@dataclass(frozen=True, slots=True)
class Run:
    """One answer. Times in seconds; a turn and a repetition count from 1.

    first_token: until the first emission; decode: from there to the last one. segments: those with
    rows of the tree, and judged those of them that came back after the first token. rows, wasted,
    accepted: see `decoding.Counts`. period: of how many tokens is what the answer repeats up to its
    end, None if it does not. details: all that the holder knows about the run.
    """

    place: str
    data: str
    line: int
    turn: int
    policy: str
    repeat: int
    prompt_tokens: int
    tokens: int
    first_token: float
    decode: float
    segments: int
    judged: int
    rows: int
    wasted: int
    accepted: int
    reason: str
    error: str | None = None
    period: int | None = None
    split: Split | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[str, int, int]:
        return self.data, self.line, self.turn

    @property
    def key(self) -> Key:
        return self.place, *self.prompt

    @property
    def total(self) -> float:
        """Seconds from end to end."""
        return self.first_token + self.decode

    def rate(self, prefill: float) -> float | None:
        """Tokens per second of decoding; None if there is no token but the first."""
        return decoding_rate(self.tokens, self.total, prefill)

    @property
    def whole_rate(self) -> float:
        """Tokens per second from end to end, the prompt's computation included."""
        return self.tokens / self.total if self.total > 0 else 0.0

    @property
    def per_tick(self) -> float:
        """Tokens emitted per segment with rows of the tree."""
        return self.tokens / max(self.segments, 1)

    @property
    def tick(self) -> float:
        """Seconds after the first token per segment that came back meanwhile."""
        return self.decode / max(self.judged, 1)

    def as_dict(self, prefill: Prefill | None) -> dict[str, Any]:
        """`prefill`: of its prompt, None if that is not known."""
        found = {
            **asdict(self),
            "prefill": None if prefill is None else prefill.seconds,
            "prefill_of": None if prefill is None else prefill.policy,
            "tokens_per_second": None if prefill is None else self.rate(prefill.seconds),
            "end_to_end": self.whole_rate,
            "split": None,
        }
        if self.split is not None:
            shares = [each._asdict() for each in self.split.shares]
            found["split"] = {
                "seconds": self.split.seconds,
                "machines": shares,
                "missed": self.split.missed,
            }
        return found


_ByPolicy: TypeAlias = dict[str, list[Run]]


def prefills(runs: Sequence[Run]) -> dict[Key, Prefill]:
    """Of each prompt in each ring, from the answers that were not cut short."""
    return {
        key: prefill({name: [run.first_token for run in each] for name, each in policies.items()})
        for key, policies in _by_prompt(runs).items()
    }


def _by_prompt(runs: Sequence[Run]) -> dict[Key, _ByPolicy]:
    found: dict[Key, _ByPolicy] = {}
    for run in runs:
        if run.error is None:
            found.setdefault(run.key, {}).setdefault(run.policy, []).append(run)
    return found


def summary(runs: Sequence[Run], policies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of one ring: for each data set and overall the number of prompts and each policy's figures;
    of "all", and of those among them whose answers are "repeating" themselves (`repeats.py`) and
    "not_repeating".

    "prompts" are those that all policies have answered, "rated" those of them where every answer
    has a token after the first one, so that it has a speed. "prefill": whose first token ended it,
    with the number of prompts, and its seconds.
    """
    sets = list(dict.fromkeys(run.data for run in runs))
    found = {name: _groups([r for r in runs if r.data == name], policies) for name in sets}
    if len(sets) != 1:
        found[OVERALL] = _groups(runs, policies)
    return {name: figures for name, figures in found.items() if figures["prompts"]}


def _groups(runs: Sequence[Run], policies: Sequence[str]) -> dict[str, Any]:
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
    """A prompt that all policies have answered."""

    prefill: Prefill
    runs: _ByPolicy

    def median(self, name: str, figure: Callable[[Run], float]) -> float:
        return statistics.median(figure(run) for run in self.runs[name])

    def rate(self, name: str) -> float:
        """Of decoding, 0 if there is none."""
        return self.median(name, lambda run: run.rate(self.prefill.seconds) or 0.0)

    def whole_rate(self, name: str) -> float:
        return self.median(name, lambda run: run.whole_rate)

    @property
    def rated(self) -> bool:
        """Has every answer a speed?"""
        return all(run.rate(self.prefill.seconds) for runs in self.runs.values() for run in runs)


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
) -> Figures:
    """Of one policy. Speeds in tokens per second, times in seconds; None where there is nothing to
    average."""
    all_runs = [run for each in prompts for run in each.runs[name]]

    def mean(figure: Callable[[Run], float], of: Sequence[_Prompt] = prompts) -> float | None:
        return _mean([each.median(name, figure) for each in of])

    def speeds(rate: Callable[[_Prompt, str], float], of: Sequence[_Prompt]) -> Figures:
        return _middle([rate(each, name) for each in of])

    def ratios(rate: Callable[[_Prompt, str], float], of: Sequence[_Prompt]) -> Figures:
        pairs = {base: [(rate(each, name), rate(each, base)) for each in of] for base in policies}
        return {base: _ratios(each) for base, each in pairs.items()}

    lasting = [each for each in rated if all(run.decode > 0 for run in each.runs[name])]
    return {
        "tokens_per_second": speeds(_Prompt.rate, rated),
        "end_to_end": speeds(_Prompt.whole_rate, prompts),
        "speedup": ratios(_Prompt.rate, rated),
        "end_to_end_speedup": ratios(_Prompt.whole_rate, prompts),
        "tokens_per_tick": mean(lambda run: run.per_tick),
        "accepted_per_segment": mean(lambda run: run.accepted / max(run.segments, 1)),
        "wasted": sum(r.wasted for r in all_runs) / max(sum(r.rows for r in all_runs), 1),
        "first_token": mean(lambda run: run.first_token),
        "tick": _tick(mean(lambda run: run.tick, lasting), all_runs),
    }


def _ratios(pairs: Sequence[tuple[float, float]]) -> Figures:
    ratios = [mine / theirs for mine, theirs in pairs if theirs > 0]
    return {**_middle(ratios), "worst": min(ratios, default=None)}


def _middle(values: Sequence[float]) -> Figures:
    return {"mean": _mean(values), "median": statistics.median(values) if values else None}


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
