"""The command line of the fuzzer."""

import argparse
import sys
import time

import uvloop

from benchmarks.fuzz.ports import Ports
from benchmarks.fuzz.pure import Pure
from benchmarks.fuzz.ring import ring
from benchmarks.fuzz.tally import Taken, Tally


SHOWN = 100


def report(what: str, count: int, began: float, before: Taken, tally: Tally) -> None:
    """Print what came of one part."""
    seconds = time.monotonic() - began
    print(f"{what}: {count:,} in {seconds:.0f} s, {len(tally.heard)} different sentences")
    print(f"  before {before}; after {Taken.now()}")
    print("\n".join(tally.common(SHOWN)))
    if tally.faults:
        print(f"{len(tally.faults)} FAULTS, the first: {tally.faults[0]}")
        sys.exit(1)


def wire(options: argparse.Namespace) -> None:
    pure = Pure(options.seed)
    pure.run(2_000)  # what is loaded late is loaded now
    before, began = Taken.now(), time.monotonic()
    tally = pure.run(options.frames)
    report("frames to a link without a socket", options.frames, began, before, tally)
    uvloop.run(over_sockets(options))


async def over_sockets(options: argparse.Namespace) -> None:
    async with ring() as made:
        ports = Ports(made, options.seed)
        await ports.begin()
        await ports.streams(500)
        before, began = Taken.now(), time.monotonic()
        await ports.streams(options.streamed)
        report("frames to the ports of a ring", ports.frames, began, before, ports.tally)
        ports.tally, ports.frames, began = Tally(), 0, time.monotonic()
        await ports.meddle(options.runs)
        report(f"frames on its links in {options.runs} runs", ports.frames, began, before, ports.tally)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz")
    parser.add_argument("--seed", type=int, default=1)
    kinds = parser.add_subparsers(required=True)
    on_wire = kinds.add_parser("wire")
    on_wire.add_argument("--frames", type=int, default=1_000_000)
    on_wire.add_argument("--streamed", type=int, default=50_000)
    on_wire.add_argument("--runs", type=int, default=2_000)
    on_wire.set_defaults(run=wire)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
