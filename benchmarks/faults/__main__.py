"""What becomes of answers while stages are killed, processes stand still and links break.

    python -m benchmarks.faults --faults 200 --seed 1
    python -m benchmarks.faults --seed 1 --only 17          # the same fault again

Real nodes of the default model, each started by hand, and real holders that are asked by the Python
API and by HTTP. Whatever happens, every answer must be that of an undisturbed ring, token for
token, and no process but the killed one may end. Ends with status 1 if anything else is seen.

    python -m benchmarks.faults flat --requests 1000        # memory and files of all processes
    sudo python -m benchmarks.faults hosts                  # over slow, narrow and lossy wires
"""

import argparse
import asyncio
import json
import statistics
import sys
from typing import Any

import uvloop

from benchmarks.faults import flat, hosts, soak
from benchmarks.faults.drawn import KINDS
from benchmarks.machine import machine

TOKENS = {"soak": 256, "flat": 16, "hosts": 128}
"""What there is to run, and how long its answers are."""


def kinds(text: str) -> tuple[str, ...]:
    """Of faults. Raises ValueError."""
    found = tuple(text.split(","))
    if not set(found) <= set(KINDS):
        raise ValueError(text)
    return found


def numbers(text: str) -> list[int]:
    """Of faults. Raises ValueError."""
    return [int(each) for each in text.split(",")]


def options() -> argparse.Namespace:
    """What the user says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="soak", choices=TOKENS)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=numbers, help="numbers of faults, to see them again")
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--tokens", type=int, help=f"of each answer: {TOKENS}")
    parser.add_argument("--kinds", type=kinds, default=KINDS, help=",".join(KINDS))
    parser.add_argument("--keys", action="store_true", help="soak: all links in TLS")
    parser.add_argument("--requests", type=int, default=1000, help="flat")
    parser.add_argument("--victim", type=int, default=2, help="flat: the stage that is killed")
    parser.add_argument("--verbose", action="store_true", help="what all processes said, each time")
    parser.add_argument("--json", help="a file for all figures")
    given = parser.parse_args()
    given.tokens = given.tokens or TOKENS[given.what]
    return given


def soaked(found: soak.Soak) -> tuple[dict[str, Any], list[str]]:
    """The figures of many faults, and what is wrong."""
    soak.table(found)
    wrong = []
    resumed = [each.resumed for each in found.outcomes if each.fault.blow.kind == "kill"]
    if resumed and statistics.median(resumed) > soak.PROMISED:
        seconds = f"{statistics.median(resumed):.2f} s"
        wrong.append(f"{seconds} from a stage that listens to the next token (median)")
    if found.wrong:
        again = ",".join(str(each.fault.number) for each in found.wrong)
        wrong.append(f"{len(found.wrong)} of {len(found.outcomes)} faults: --only {again}")
    return {"outcomes": [each.figures() for each in found.outcomes]}, wrong


def flattened(found: flat.Flat) -> tuple[dict[str, Any], list[str]]:
    """The figures of many requests, and what is wrong."""
    flat.table(found)
    trends = [trend.figures() for trend in found.trends()]
    grown = [f"{trend.name} grew" for trend in found.trends() if not (trend.flat or trend.young)]
    return {"trends": trends}, found.wrong + grown


def hosted(how: str, runs: list[hosts.Run]) -> tuple[dict[str, Any], list[str]]:
    """The figures of a ring over other hosts, and what is wrong."""
    print(f"{how}; each wire does that to what its host sends, so twice to a round trip")
    wrong = [f"{run.condition} {run.what}: {why}" for run in runs for why in run.wrong]
    return {"how": how, "runs": [run.figures() for run in runs]}, wrong


def main() -> None:
    given = options()
    print(json.dumps(machine()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if given.what == "flat":
            figures, wrong = flattened(runner.run(flat.flat(given)))
        elif given.what == "hosts":
            figures, wrong = hosted(*runner.run(hosts.hosts(given)))
        else:
            figures, wrong = soaked(runner.run(soak.soak(given)))
    if given.json:
        with open(given.json, "w") as file:
            json.dump({"machine": machine(), **figures, "wrong": wrong}, file, indent=1)
    for each in wrong:
        print(f"WRONG: {each}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
