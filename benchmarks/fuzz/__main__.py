"""The command line of the fuzzer."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.fuzz.http import Requests
from benchmarks.fuzz.ports import Ports
from benchmarks.fuzz.pure import Pure
from benchmarks.fuzz.ring import CONFIG, ring
from benchmarks.fuzz.tally import Taken, Tally
from benchmarks.served import GARDENER, Served, served
from gardener.model.random.folder import write_folder

SHOWN = 12
"""Sentences that are listed."""


def report(what: str, count: int, began: float, before: Taken, after: Taken, tally: Tally) -> None:
    """Print what came of one part."""
    seconds = time.monotonic() - began
    print(f"{what}: {count:,} in {seconds:.0f} s, {len(tally.heard)} different sentences")
    print(f"  before {before}; after {after}")
    print("\n".join(tally.common(SHOWN)), flush=True)
    if tally.faults:
        print(f"{len(tally.faults)} FAULTS, the first: {tally.faults[0]}")
        sys.exit(1)


def wire(options: argparse.Namespace) -> None:
    pure = Pure(options.seed)
    pure.run(2_000)  # what is loaded late is loaded now
    before, began = Taken.now(), time.monotonic()
    tally = pure.run(options.frames)
    report("frames to a link without a socket", pure.frames, began, before, Taken.now(), tally)
    uvloop.run(over_sockets(options))


async def over_sockets(options: argparse.Namespace) -> None:
    async with ring() as made:
        ports = Ports(made, options.seed)
        await ports.begin()
        await ports.streams(500)
        before, began = Taken.now(), time.monotonic()
        await ports.streams(options.streamed)
        report(
            "frames to the ports of a ring", ports.frames, began, before, Taken.now(), ports.tally
        )
        ports.tally, ports.frames, began = Tally(), 0, time.monotonic()
        await ports.meddle(options.runs)
        report(
            f"frames on its links in {options.runs} runs",
            ports.frames,
            began,
            before,
            Taken.now(),
            ports.tally,
        )


def http(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="gardener-fuzz-") as folder:
        model = Path(folder) / "tiny"
        write_folder(CONFIG, model, dtype="float32")
        command = (
            "serve",
            "--local",
            "1",
            "--model",
            str(model),
            "--port",
            "0",
            "--served-name",
            "tiny",
        )
        with served(*GARDENER, *command) as server:
            requests = Requests(server, options.seed)
            asyncio.run(requests.run(2_000))
            before, began = _of(server), time.monotonic()
            asyncio.run(requests.run(options.requests, first=2_000))
            time.sleep(1)  # what was left is let go of
            report("requests", requests.sent, began, before, _of(server), requests.tally)
            if server.fault:
                sys.exit(f"FAULT: {server.fault}")


def _of(server: Served) -> Taken:
    """What the server and its stages take."""
    found = [Taken.of(process) for process in server.processes()]
    return Taken(sum(each.memory for each in found), sum(each.files for each in found))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz")
    parser.add_argument("--seed", type=int, default=1)
    kinds = parser.add_subparsers(required=True)
    on_wire = kinds.add_parser("wire")
    on_wire.add_argument("--frames", type=int, default=1_000_000)
    on_wire.add_argument("--streamed", type=int, default=50_000)
    on_wire.add_argument("--runs", type=int, default=2_000)
    on_wire.set_defaults(run=wire)
    on_http = kinds.add_parser("http")
    on_http.add_argument("--requests", type=int, default=100_000)
    on_http.set_defaults(run=http)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
