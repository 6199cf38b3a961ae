"""Whether every kind of weights writes the same text under every policy, and what the ring claims.

Runs `gardener verify` once for each kind, number of threads of a stage, and number of stages, and
prints a table of what came of it. All of it takes hours: `--out FILE` keeps every finished run, a
line each, and a later call with the same file goes on where the last one ended. `--kinds`,
`--threads` and `--stages` choose parts of it; `--count`, `--tokens` and `--policies` make each run
shorter.

    python -m benchmarks.exactness --out exactness.jsonl [--kinds bfloat16 int4] [--threads 1 2 3]

Kinds are written as in `kinds.py`. A run is the same run only in the same checkout: give another
one another file.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from benchmarks.kinds import START, Kind
from benchmarks.machine import machine
from gardener.cli.program import note

KINDS = ("float32", "bfloat16", "float16", "int4", "int8", "nf4", "fp4", "llm-int8")
TREE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Asked:
    """One run of `gardener verify`."""

    model: str
    kind: str
    threads: int
    stages: int
    count: int
    tokens: int
    policies: str
    reference: str

    def options(self) -> list[str]:
        kind = Kind.read(self.kind)
        told = {
            "model": self.model,
            "dtype": kind.dtype,
            "quant": kind.quant,
            "quant-head": kind.head,
            "threads": self.threads,
            "local": self.stages,
            "count": self.count,
            "max-new-tokens": self.tokens,
            "policies": self.policies or None,
            "reference": self.reference,
        }
        given = {name: str(value) for name, value in told.items() if value is not None}
        return [part for name, value in given.items() for part in (f"--{name}", value)]


@dataclass(frozen=True)
class Found:
    """What came of it. exactness: what the ring says about itself. error: why there is nothing;
    a run that failed is tried anew."""

    asked: Asked
    same: int = 0
    tie: int = 0
    different: int = 0
    reference: str = ""
    exactness: str = ""
    seconds: float = 0.0
    error: str = ""

    def __str__(self) -> str:
        asked = self.asked
        head = f"{asked.kind:16} {asked.threads:7} {asked.stages:6}"
        if self.error:
            return f"{head}  {self.error}"
        return (
            f"{head} {self.same:6} {self.tie:5} {self.different:9} {self.seconds:8.0f} s  "
            f"against {self.reference}, {self.exactness}"
        )


def verified(asked: Asked) -> Found:
    """Run it."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-P", "-c", START, "verify", *asked.options(), "--json"],
        env={**os.environ, "PYTHONPATH": str(TREE)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = round(time.monotonic() - begin, 1)
    if not done.stdout.strip():
        line = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Found(asked, seconds=seconds, error=line)
    told = json.loads(done.stdout)
    counts = {name: told[name] for name in ("same", "tie", "different")}
    claim = told.get("exactness", "which says nothing of how exact it is")
    return Found(asked, **counts, reference=told["reference"], exactness=claim, seconds=seconds)


def kept(path: Path | None) -> dict[Asked, Found]:
    """The runs that the file has."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    runs = [Found(**{**row, "asked": Asked(**row["asked"])}) for row in rows]
    return {run.asked: run for run in runs}


def runs(options: argparse.Namespace) -> Iterator[Found]:
    """Each that was asked for, from the file or run now."""
    known = kept(options.out)
    for kind, threads, stages in product(options.kinds, options.threads, options.stages):
        asked = Asked(
            options.model,
            kind,
            threads,
            stages,
            options.count,
            options.tokens,
            options.policies,
            options.reference,
        )
        found = known.get(asked)
        if found is None:
            note(f"{kind}, threads {threads}, stages {stages} ...")
            found = verified(asked)
            if options.out is not None and not found.error:
                with options.out.open("a") as stream:
                    stream.write(json.dumps(asdict(found)) + "\n")
        yield found


def summary(done: Sequence[Found]) -> str:
    """All of them in a line."""
    sums = {name: sum(getattr(run, name) for run in done) for name in ("same", "tie", "different")}
    told = ", ".join(f"{count} {name}" for name, count in sums.items())
    return f"{len(done)} runs: {told}, {sum(bool(run.error) for run in done)} runs failed"


def main() -> None:
    """Run and print; ends with status 1 if a text differs or a run failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), metavar="KIND")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--stages", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--count", type=int, default=24, help="prompts")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--policies", default="", metavar="NAME,...", help="default: all")
    parser.add_argument("--reference", default="plain", help="as `gardener verify` takes it")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keeps what was run")
    options = parser.parse_args()
    for kind in options.kinds:  # find out now, not after an hour
        if Kind.read(kind).group is not None:
            parser.error(f"{kind}: stages that quantise by themselves have one group")
    print(machine())
    print(f"{'kind':16} threads stages   same   tie different")
    done: list[Found] = []
    for found in runs(options):
        done.append(found)
        print(found, flush=True)
    print(summary(done))
    sys.exit(any(run.different or run.error for run in done))


if __name__ == "__main__":
    main()
