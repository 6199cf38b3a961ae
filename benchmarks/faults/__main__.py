"""What becomes of answers while stages are killed, processes stand still and links break.

    python -m benchmarks.faults --faults 200 --seed 1
    python -m benchmarks.faults --seed 1 --only 17          # the same fault again

Real nodes of the default model, each started by hand, and real holders that are asked by the Python
API and by HTTP. Whatever happens, every answer must be that of an undisturbed ring, token for
token, and no process but the killed one may end. Ends with status 1 if anything else is seen.
"""

import argparse
import asyncio
import json
import statistics
import sys

import uvloop

from benchmarks.faults.drawn import KINDS
from benchmarks.faults.soak import PROMISED, soak, table
from benchmarks.machine import machine


def kinds(text: str) -> tuple[str, ...]:
    """Of faults. Raises ValueError."""
    found = tuple(text.split(","))
    if not set(found) <= set(KINDS):
        raise ValueError(text)
    return found


def numbers(text: str) -> list[int]:
    """Of faults. Raises ValueError."""
    return [int(each) for each in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=numbers, help="numbers of faults, to see them again")
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--kinds", type=kinds, default=KINDS, help=",".join(KINDS))
    parser.add_argument("--json", help="a file for all figures")
    options = parser.parse_args()
    print(json.dumps(machine()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(soak(options))
    table(found)
    if options.json:
        with open(options.json, "w") as file:
            outcomes = [each.figures() for each in found.outcomes]
            json.dump({"machine": machine(), "outcomes": outcomes}, file, indent=1)
    resumed = [each.resumed for each in found.outcomes if each.fault.blow.kind == "kill"]
    if resumed and statistics.median(resumed) > PROMISED:
        print(f"SLOW: {statistics.median(resumed):.2f} s from a stage that listens to a token")
    if found.wrong:
        print(f"WRONG: {len(found.wrong)} of {len(found.outcomes)} faults")
    sys.exit(bool(found.wrong))


if __name__ == "__main__":
    main()
