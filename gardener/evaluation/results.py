"""Everything that an evaluation has found so far: runs, texts, what was skipped, what differed.

It is kept apart from the ring that is measured, so that nothing is lost when the ring breaks or the
user ends the evaluation.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from gardener.errors import UserError
from gardener.evaluation import concurrency
from gardener.evaluation.concurrency import Load
from gardener.evaluation.plan import Place, Plan
from gardener.evaluation.tally import MeasuredRun, prefills, summary
from gardener.evaluation.timeline import Timeline
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.runtime.files import make_folder, write_text

FORMAT = 3
"""The version of results.json."""

Prompt: TypeAlias = tuple[str, int, int]
"""Data set, line in it, and turn; lines and turns count from 1."""


@dataclass(frozen=True, slots=True)
class Written:
    """The first answer to a prompt: all others must equal it, and later turns follow it."""

    place: str
    policy: str
    prompt: str
    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """An answer that differs from the first one to its prompt. `token`: the index of the first
    token that differs; `around`: the text about it, in both; `requests`: how many were asked at
    once when it came. `tokens`: the two that differ; None: that text has ended. `gap`: between
    their scores, if it was looked at; `near_tie`: it is so small that a ring which says that it is
    not exact may write the one or the other."""

    data: str
    line: int
    turn: int
    token: int
    places: tuple[str, str]
    policies: tuple[str, str]
    around: tuple[str, str]
    requests: int = 1
    tokens: tuple[int | None, int | None] = (None, None)
    gap: float | None = None
    near_tie: bool = False

    def __str__(self) -> str:
        names = [
            f"{policy} ({place})" for policy, place in zip(self.policies, self.places, strict=True)
        ]
        lines = [f"  {n}: {text!r}" for n, text in zip(names, self.around, strict=True)]
        where = f"{self.data}, line {self.line}, turn {self.turn}"
        if self.requests > 1:
            names[1] += f" with {self.requests} requests at once"
        head = "a near tie" if self.near_tie else "THE TEXTS DIFFER"
        said = f"{head}: {where}: {names[1]} left {names[0]} at token {self.token}"
        return "\n".join([said, *lines])


@dataclass(frozen=True, slots=True)
class Skipped:
    """A turn that could not be asked."""

    data: str
    line: int
    turn: int
    why: str

    def __str__(self) -> str:
        return f"skipped {self.data}, line {self.line}, turn {self.turn}: {self.why}"


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that was cut short. `repeat` from 1. `requests`: how many were asked at once."""

    place: str
    data: str
    line: int
    turn: int
    policy: str
    repeat: int
    why: str
    requests: int = 1

    def __str__(self) -> str:
        where = f"{self.data}, line {self.line}, turn {self.turn}"
        run = f"run {self.repeat}"
        if self.requests > 1:
            run += f" with {self.requests} requests at once"
        return f"FAILED: {where}: {self.policy} ({self.place}), {run}: {self.why}"


@dataclass
class Results:
    """`header`: machine, versions, command and settings. `ended`: why the evaluation is over
    ("done" if all was measured), or None. `sampling`: how tokens are picked, with the seed, once a
    ring stands. `template`: the chat template, once a ring stands; None: prompts go as they are.
    `timelines`: those of one prompt, by ring and policy. `loads`: several requests at once."""

    header: dict[str, Any]
    plan: Plan
    ended: str | None = None
    rings: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: list[MeasuredRun] = field(default_factory=list)
    written: dict[Prompt, Written] = field(default_factory=dict)
    skipped: dict[Prompt, Skipped] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    timelines: dict[str, dict[str, Timeline]] = field(default_factory=dict)
    sampling: Sampling = GREEDY
    template: str | None = None
    loads: list[Load] = field(default_factory=list)

    @property
    def failures(self) -> list[Failure]:
        """The answers that were cut short."""
        alone = [
            Failure(r.place, r.data, r.line, r.turn, r.policy, r.repeat, r.error)
            for r in self.runs
            if r.error is not None
        ]
        return alone + [each for load in self.loads for each in failures_of(load)]

    def add_ring(
        self,
        place: Place,
        cards: Sequence[dict[str, Any]],
        drafters: str,
        policies: Mapping[str, str] | None = None,
        facts: Mapping[str, str] | None = None,
        near_tie: float = 0.0,
        exactness: str = "",
    ) -> None:
        """`drafters`: their names, and what they compute with. `policies`: the settings of each
        policy, by its name. `facts`: what else there is to say about the figures of this ring, by
        what it is about. `near_tie`, `exactness`: see the functions of this name in
        `cards.py`."""
        self.rings[str(place)] = {
            "kind": place.kind,
            "stages": len(cards),
            "profile": place.profile,
            "simulated": place.kind == "simulate",
            "draft": place.draft,
            "drafters": drafters,
            "policies": dict(policies or {}),
            "facts": dict(facts or {}),
            "near_tie": near_tie,
            "exactness": exactness,
            "cards": list(cards),
        }

    def near_ties(self, place: str) -> float:
        """Scores that are closer than this are a near tie in the ring of this name; 0.0: no two
        are, or the ring is not known."""
        found: float = self.rings.get(place, {}).get("near_tie", 0.0)
        return found

    @property
    def wrong(self) -> list[Difference]:
        """The differences that are more than a near tie."""
        return [each for each in self.differences if not each.near_tie]

    def figures(self) -> dict[str, dict[str, Any]]:
        """The summaries by ring and data set; see `tally.summary`."""
        return {
            ring: summary([r for r in self.runs if r.place == ring], self.plan.policies)
            for ring in self.rings
        }

    def concurrency(self) -> dict[str, dict[str, Any]]:
        """The figures of several requests at once by ring; see `concurrency.summary`. None where
        each prompt was asked alone."""
        if self.plan.levels == (1,):
            return {}
        return {
            ring: concurrency.summary(
                [load for load in self.loads if load.place == ring],
                [run for run in self.runs if run.place == ring],
                self.plan.policies,
                self.plan.levels,
            )
            for ring in self.rings
        }

    def brief(self) -> dict[str, Any]:
        """All but the runs and texts."""
        return {
            "format": FORMAT,
            "ended": self.ended or "under way",
            "agree": not self.differences,
            "near_ties": len(self.differences) - len(self.wrong),
            "differences": [asdict(each) for each in self.differences],
            "failures": [asdict(each) for each in self.failures],
            "skipped": [asdict(each) for each in self.skipped.values()],
            **self.header,
            "template": self.template,
            "sampling": msgspec.structs.asdict(self.sampling),
            "rings": self.rings,
            "figures": self.figures(),
            "concurrency": self.concurrency(),
        }

    def whole(self) -> dict[str, Any]:
        """The content of results.json."""
        answers = [
            {"data": data, "line": line, "turn": turn, **asdict(each)}
            for (data, line, turn), each in self.written.items()
        ]
        taken = prefills(self.runs)
        runs = [run.as_dict(taken.get(run.key)) for run in self.runs]
        loads = [asdict(load) for load in self.loads]
        return {**self.brief(), "answers": answers, "runs": runs, "loads": loads}

    def save(self, folder: Path) -> Path:
        """Write results.json, whole or not at all. Raises UserError."""
        path = folder / "results.json"
        write_text(path, json.dumps(self.whole(), indent=1))
        return path


def failures_of(load: Load) -> list[Failure]:
    """The answers of a load that were cut short."""
    return [
        Failure(load.place, *each.prompt, load.policy, load.repeat, each.error, load.requests)
        for each in load.answers
        if each.error is not None
    ]


def new_folder(folder: Path) -> Path:
    """Make the folder for the results. Raises UserError if there are results in it already."""
    if (folder / "results.json").exists():
        raise UserError(
            f"{folder} has a results.json of an earlier evaluation: choose another folder with "
            "--out, or delete it"
        )
    make_folder(folder)
    return folder
