"""Rings of real processes on one device, through the commands that people use.

`verified`: what every policy writes, against the ring's own plain decoding (`gardener verify`).
`evaluated`: how fast policies are, in turns on the same prompts (`gardener eval`), and the passes
that the stages computed meanwhile (`observed.py`).
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.accelerator.processes import run
from benchmarks.kinds import Kind

OBSERVED = Path(__file__).with_name("observed.py")
STAGES = 2

GAVE_UP = "kernels are started one by one"
"""What a stage logs where it cannot record its passes, see `device.graphs`."""

SETS = 6
"""Of prompts, in those of the package."""


@dataclass(frozen=True)
class Ring:
    """Two stages on one device. kind: as in `benchmarks.kinds`; draft_device: where the drafters
    compute."""

    kind: str
    graphs: bool = True
    draft_device: str = "cpu"

    def __str__(self) -> str:
        graphs = "" if self.graphs else ", no graphs"
        return f"{self.kind}{graphs}, drafter on {self.draft_device}"

    def options(self, model: str, device: str) -> list[str]:
        """Of any command."""
        kind = Kind.read(self.kind)
        told = {
            "model": model,
            "local": str(STAGES),
            "device": device,
            "dtype": kind.dtype,
            "quant": kind.quant,
            "draft-device": self.draft_device,
        }
        given = [part for name, value in told.items() for part in (f"--{name}", value)]
        return given if self.graphs else [*given, "--no-graphs"]


@dataclass(frozen=True)
class Pass:
    """That a stage, counted from 0, computed for a text of `context` tokens, in microseconds."""

    policy: str
    context: int
    stage: int
    rows: int
    micros: int


@dataclass
class Verified:
    """What was compared. error: why that is not all; "": it is. late: it is not for lack of time.
    exactness: what the ring says of itself. differences: as `gardener verify` tells them.
    gave_up: as in `Evaluated`."""

    ring: Ring
    seconds: float
    same: int = 0
    tie: int = 0
    different: int = 0
    exactness: str = ""
    differences: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    late: bool = False
    gave_up: bool = False

    @property
    def inexact(self) -> bool:
        """Whether the ring says that its near ties may differ, see `cards.exactness`."""
        return self.exactness.startswith("near ties may differ")


@dataclass
class Evaluated:
    """What `gardener eval` found. policies: figures by name, see `tally.summary`. prompts: that
    all of them have answered, of how many were `wanted`; 0: nobody knows. differences: texts that
    differ, near ties among them. passes: not in JSON, for there are thousands. error: why that is
    not all; "": it is. gave_up: whether a stage had to go on without graphs."""

    ring: Ring
    seconds: float
    prompts: int = 0
    wanted: int = 0
    policies: dict[str, Any] = field(default_factory=dict)
    cards: list[dict[str, Any]] = field(default_factory=list)
    exactness: str = ""
    differences: list[dict[str, Any]] = field(default_factory=list)
    near_ties: int = 0
    error: str = ""
    gave_up: bool = False
    passes: list[Pass] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the ring, as it was in fact."""
        return f"{self.ring}, graphs failed" if self.gave_up else str(self.ring)

    @property
    def different(self) -> int:
        """Texts that differ where the ring does not say that they may."""
        return len(self.differences) - self.near_ties

    @property
    def whole(self) -> bool:
        """Whether all prompts were answered that were asked for."""
        return not self.error and self.prompts >= self.wanted

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "passes": len(self.passes)}

    def rate(self, policy: str) -> float | None:
        """Tokens a second, the median prompt."""
        return self._median(policy, "tokens_per_second")

    def gain(self, policy: str) -> float | None:
        """Times as fast as plain decoding, the median prompt."""
        return self._median(policy, "speedup", "plain")

    def _median(self, policy: str, *figure: str) -> float | None:
        found: dict[str, Any] = self.policies.get(policy, {})
        for name in figure:
            found = found.get(name, {})
        median: float | None = found.get("median")
        return median


def verified(
    ring: Ring,
    model: str,
    device: str,
    policies: Sequence[str],
    count: int,
    tokens: int,
    time: float,
) -> Verified:
    """For `time` seconds at most."""
    with tempfile.TemporaryDirectory(prefix="gardener-") as scratch:
        seen = Path(scratch) / "seen.jsonl"
        asked = ["--count", str(count), "--max-new-tokens", str(tokens)]
        asked += ["--policies", ",".join(policies), "--reference", "plain", "--json"]
        ran = run(_command(seen, "verify", [*ring.options(model, device), *asked]), time)
        found = Verified(ring, ran.seconds)
        told = _json(ran.out)
        if told:
            found.exactness = told["exactness"]
            texts: list[dict[str, Any]] = told["comparisons"]
        else:
            found.error, found.late = ran.said, ran.status is None
            texts = [each["text"] for each in lines(seen) if "text" in each]
        found.gave_up = gave_up(lines(seen))
    for outcome in ("same", "tie", "different"):
        setattr(found, outcome, sum(each["outcome"] == outcome for each in texts))
    found.differences = [each for each in texts if each["outcome"] != "same"]
    return found


def evaluated(
    ring: Ring,
    model: str,
    device: str,
    policies: Sequence[str],
    data: Path | None,
    prompts: int,
    tokens: int,
    time: float,
) -> Evaluated:
    """For `time` seconds at most. `prompts` of each data set: those of the package are six."""
    with tempfile.TemporaryDirectory(prefix="gardener-") as scratch:
        seen, out = Path(scratch) / "seen.jsonl", Path(scratch) / "out"
        asked = ["--prompts", str(prompts), "--max-new-tokens", str(tokens)]
        asked += ["--policies", ",".join(policies), "--out", str(out), "--no-plots", "--json"]
        asked += [] if data is None else ["--data", str(data)]
        ran = run(_command(seen, "eval", [*ring.options(model, device), *asked]), time)
        told = _json(ran.out) or _kept(out / "results.json")
        known = lines(seen)
        found = Evaluated(ring, ran.seconds, passes=list(passes(known)), gave_up=gave_up(known))
        found.wanted = prompts * SETS if data is None else 0
    if told.get("ended") != "done":
        found.error = ran.said
    _take(found, told)
    return found


def _take(found: Evaluated, told: dict[str, Any]) -> None:
    """What `gardener eval` told of its only ring."""
    for ring in told.get("rings", {}).values():
        found.cards, found.exactness = ring["cards"], ring["exactness"]
    for sets in told.get("figures", {}).values():
        figures: dict[str, Any] = sets.get("overall") or next(iter(sets.values()), {})
        found.prompts, found.policies = figures.get("prompts", 0), figures.get("policies", {})
    found.differences, found.near_ties = told.get("differences", []), told.get("near_ties", 0)


def _command(seen: Path, name: str, options: Sequence[str]) -> list[str]:
    return [sys.executable, "-P", str(OBSERVED), str(seen), name, *options]


def _json(text: str) -> dict[str, Any]:
    """{}: there is none, or not all of it."""
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


def _kept(path: Path) -> dict[str, Any]:
    return _json(path.read_text()) if path.exists() else {}


def lines(path: Path) -> list[dict[str, Any]]:
    """Those that are whole: the last one of a process that was killed may not be."""
    text = path.read_text() if path.exists() else ""
    return [found for line in text.splitlines() if (found := _json(line))]


def gave_up(seen: Sequence[dict[str, Any]]) -> bool:
    """Whether a stage had to go on without graphs."""
    return any(GAVE_UP in each.get("heard", "") for each in seen)


def passes(seen: Sequence[dict[str, Any]]) -> Iterator[Pass]:
    """Each that had rows; where segments left together, one speaks for all."""
    for each in seen:
        if "passes" in each:
            policy, context, stages = each["passes"]
            for stage, (rows, micros) in enumerate(stages):
                if rows and micros:
                    yield Pass(policy, context, stage, rows, micros)
