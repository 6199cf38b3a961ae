"""The command line of the fuzzer."""

import argparse
import sys
import time

from benchmarks.fuzz.pure import Pure
from benchmarks.fuzz.tally import Taken, Tally


def report(what: str, count: int, began: float, before: Taken, tally: Tally) -> None:
    """Print what came of one part."""
    seconds = time.monotonic() - began
    print(f"{what}: {count:,} in {seconds:.0f} s, {len(tally.heard)} different sentences")
    print(f"  before {before}; after {Taken.now()}")
    print("\n".join(tally.common(12)))
    if tally.faults:
        print(f"{len(tally.faults)} FAULTS, the first: {tally.faults[0]}")
        sys.exit(1)


def wire(options: argparse.Namespace) -> None:
    pure = Pure(options.seed)
    pure.run(2_000)  # what is loaded late is loaded now
    before, began = Taken.now(), time.monotonic()
    tally = pure.run(options.frames)
    report("frames to a link without a socket", options.frames, began, before, tally)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz")
    parser.add_argument("--seed", type=int, default=1)
    kinds = parser.add_subparsers(required=True)
    on_wire = kinds.add_parser("wire")
    on_wire.add_argument("--frames", type=int, default=1_000_000)
    on_wire.set_defaults(run=wire)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
