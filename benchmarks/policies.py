"""Tokens per second of the policies on the same prompts, in the same ring, in turns.

Prompts come from a JSONL file with `turns` and, if they have one, a `category`: figures are given
per category. Each repetition runs every policy on every prompt, in an order that rotates, so that a
machine that drifts drifts for all. What is compared is decoding alone, without the prefill.

Run from the checkout: `python -m benchmarks.policies --local 2 [--data FILE] [--json]`.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from gardener.cli.program import ignore
from gardener.cli.ring import RingSettings, open_ring, shape
from gardener.holder import Holder
from gardener.policy import Shape, make
from gardener.prompts import Prompter
from gardener.run import Answer, Wanted, answer

OWN = Path(__file__).parent.parent / "gardener" / "prompts.jsonl"


@dataclass(frozen=True)
class Prompt:
    category: str
    text: str


@dataclass(frozen=True)
class Plan:
    """What to run."""

    prompts: list[Prompt]
    policies: list[str]
    new_tokens: int
    repeat: int


def read(path: Path, most: int | None) -> list[Prompt]:
    """Prompts of one file; without a category, the file's name is one."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [Prompt(row.get("category", path.stem), row["turns"][0]) for row in rows[:most]]


async def measure(holder: Holder, prompter: Prompter, plan: Plan, sizes: Shape) -> dict[str, Any]:
    """Median tokens per second by category and policy, and their ratios to the first policy."""
    rates: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    counts: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for number, prompt in enumerate(plan.prompts):
        wanted = Wanted(prompter.encode(prompt.text), plan.new_tokens)
        runs: dict[str, list[float]] = {name: [] for name in plan.policies}
        texts = set()
        for turn in range(-1, plan.repeat):  # the first turn warms up
            for name in rotated(plan.policies, turn):
                got = await answer(holder, prompter, make(name, sizes), wanted)
                if got.error:
                    raise SystemExit(got.error)
                texts.add(tuple(got.tokens))
                if turn >= 0 and len(got.tokens) > 1:
                    runs[name].append(got.rate)
                    counts[prompt.category, name].append(got)
        if len(texts) != 1:
            raise SystemExit(f"the texts of prompt {number} differ")
        for name, values in runs.items():
            if values:
                rates[prompt.category, name].append(values)
        sys.stderr.write(f"\r{number + 1} of {len(plan.prompts)} prompts ")
    sys.stderr.write("\n")
    return summary(plan, rates, counts)


def rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


def summary(
    plan: Plan,
    rates: dict[tuple[str, str], list[list[float]]],
    counts: dict[tuple[str, str], list[Answer]],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    base = plan.policies[0]
    for category in dict.fromkeys(prompt.category for prompt in plan.prompts):
        rows = {}
        for name in plan.policies:
            medians = [statistics.median(values) for values in rates[category, name]]
            bases = [statistics.median(values) for values in rates[category, base]]
            ratios = [m / b for m, b in zip(medians, bases, strict=True)]
            answers = counts[category, name]
            rows[name] = {
                "tokens_per_second": statistics.mean(medians),
                f"ratio_to_{base}": statistics.mean(ratios),
                f"worst_ratio_to_{base}": min(ratios),
                "tokens_per_segment": statistics.mean(each.per_segment for each in answers),
                "wasted": sum(a.counts.wasted for a in answers)
                / max(sum(a.counts.rows for a in answers), 1),
            }
        found[category] = {"prompts": len(rates[category, base]), "policies": rows}
    return found


def show(report: dict[str, Any]) -> None:
    base = report["policies"][0]
    for category, found in report["categories"].items():
        for name, row in found["policies"].items():
            print(
                f"{category:10} {name:9} {row['tokens_per_second']:7.1f} tokens/s  "
                f"x{row[f'ratio_to_{base}']:.3f} {base} "
                f"(worst prompt x{row[f'worst_ratio_to_{base}']:.3f})  "
                f"{row['tokens_per_segment']:.2f} tokens/segment  {row['wasted']:.0%} wasted"
            )


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    settings = RingSettings(
        model=arguments.model,
        revision=None,
        local=arguments.local,
        peer=None,
        listen="127.0.0.1:0",
        dtype=arguments.dtype,
        device="cpu",
        threads=arguments.threads,
        quant="none",
        patience=120.0,
    )
    prompts = [p for path in arguments.data or [OWN] for p in read(path, arguments.prompts)]
    plan = Plan(prompts, arguments.policies.split(","), arguments.new_tokens, arguments.repeat)
    async with open_ring(settings, ignore, ignore) as (holder, folder):
        sizes = shape(len(holder.cards), arguments.rows, arguments.window, arguments.floor)
        categories = await measure(holder, Prompter(folder), plan, sizes)
    return {
        "machine": machine(),
        "stages": arguments.local,
        "dtype": arguments.dtype,
        "new_tokens": plan.new_tokens,
        "runs": plan.repeat,
        "policies": plan.policies,
        "categories": categories,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--local", type=int, default=2, help="stages on this machine")
    parser.add_argument("--data", type=Path, nargs="*", help="JSONL files; default: the own set")
    parser.add_argument("--prompts", type=int, help="only so many of each file")
    parser.add_argument("--policies", default="plain,serial,gardener", help="the first is the base")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5, help="runs of which the median counts")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--window", type=int)
    parser.add_argument("--floor", type=float, default=0.2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = asyncio.run(run(arguments))
    if arguments.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
