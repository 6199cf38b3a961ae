"""The parts of a run, each with its budget: see the package."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accelerator import stage
from benchmarks.accelerator.budget import Budget
from benchmarks.accelerator.curve import beside
from benchmarks.accelerator.processes import stop
from benchmarks.accelerator.report import Report
from benchmarks.accelerator.rings import Evaluated, Ring, Verified, evaluated, verified
from gardener.decoding.policy import POLICIES

WEIGHTS = {"stage": 0.32, "verify": 0.32, "speed": 0.35, "curve": 0.01}
"""What is due to each part of the seconds that are left. The curve is read from the passes of
`speed`; where that is not run, it has a ring of its own, and all that is left."""

LEAST = 15.0
"""Seconds below which no ring is begun."""

CORES = 4
"""Of the processor for each ring, where several are compared at once: nobody times those."""

VERIFIED = ("bfloat16", "int4:bfloat16", "float32", "float16")


@dataclass(frozen=True)
class Speed:
    """A ring and the policies that are timed in it; `prompts` of each of the six data sets."""

    ring: Ring
    policies: Sequence[str]
    prompts: int = 2


def speeds(device: str) -> list[Speed]:
    """The important ones first."""
    return [
        Speed(Ring("bfloat16"), ("plain", "serial", "gardener", "flowspec", "alternating")),
        Speed(Ring("bfloat16", draft_device=device), ("plain", "serial", "gardener")),
        Speed(Ring("bfloat16", graphs=False), ("plain", "gardener"), 1),
        Speed(Ring("float32", draft_device=device), ("plain", "gardener"), 1),
        Speed(Ring("int4:bfloat16", draft_device=device), ("plain", "gardener"), 1),
    ]


@dataclass(frozen=True)
class Asked:
    """What a run is asked for. data: prompts in a file; None: those of the package. quick: only as
    much of everything as shows that it runs."""

    device: str
    model: str
    data: Path | None = None
    quick: bool = False
    tokens: int = 64
    count: int = 12


def run_stage(asked: Asked, budget: Budget, report: Report) -> None:
    """See `stage`."""
    wanted = stage.Wanted.of(asked.device, asked.quick)
    if not any(unit.graphs for unit in wanted.units):
        report.left_out["stage"].append(f"with graphs: {asked.device} has none")
    try:
        stage.measure(wanted, budget, report.stage, report.save)
    finally:  # what was left out until it failed is told too
        report.left_out["stage"] += report.stage.left_out


def run_verify(asked: Asked, budget: Budget, report: Report) -> None:
    """As many rings at once as there are cores for: texts do not depend on the time."""
    kinds = ("bfloat16",) if asked.quick else VERIFIED
    names = ("plain", "gardener") if asked.quick else tuple(POLICIES)
    at_once = max(min((os.cpu_count() or 1) // CORES, len(kinds)), 1)

    def one(kind: str) -> Verified | None:
        if budget.left < LEAST and not asked.quick:
            return None
        ring = Ring(kind)
        # Those that wait for their turn are to have one: they share what is left.
        waves = -(-(len(kinds) - kinds.index(kind)) // at_once)
        time = budget.share(1, waves).seconds
        return verified(ring, asked.model, asked.device, names, asked.count, asked.tokens, time)

    with ThreadPoolExecutor(at_once) as pool:
        futures = {pool.submit(one, kind): kind for kind in kinds}
        try:
            for future in as_completed(futures):
                found = future.result()
                if found is None:
                    report.left_out["verify"].append(f"{futures[future]}: no time")
                else:
                    report.verified.append(found)
                report.save()
        except BaseException:  # the pool would wait for them
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def run_speed(asked: Asked, budget: Budget, report: Report) -> None:
    """One ring after the other."""
    wanted = speeds(asked.device)
    if asked.quick:
        wanted = [Speed(Ring("bfloat16"), ("plain", "gardener"), 1)]
    while wanted:
        first = wanted.pop(0)
        if budget.left < LEAST and not asked.quick:
            report.left_out["speed"].append(f"{first.ring}: no time")
            continue
        report.evaluated.append(_evaluated(first, asked, budget.share(2, len(wanted) + 2).seconds))
        report.save()


def run_curve(asked: Asked, budget: Budget, report: Report) -> None:
    """Of all rings whose passes are known."""
    if not report.evaluated:
        only = Speed(Ring("bfloat16"), ("plain", "gardener"), 1)
        report.evaluated.append(_evaluated(only, asked, budget.left))
    for each in report.evaluated:
        report.curve += [(each.name, found) for found in beside(each.passes, each.cards)]
        if not each.passes:
            report.left_out["curve"].append(f"{each.ring}: no passes; {each.error}")


def _evaluated(wanted: Speed, asked: Asked, time: float) -> Evaluated:
    return evaluated(
        wanted.ring,
        asked.model,
        asked.device,
        wanted.policies,
        asked.data,
        wanted.prompts,
        asked.tokens,
        time,
    )


PARTS: dict[str, Callable[[Asked, Budget, Report], None]] = {
    "stage": run_stage,
    "verify": run_verify,
    "speed": run_speed,
    "curve": run_curve,
}
