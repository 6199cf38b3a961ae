"""What `gardener serve` adds to an answer, and how it stands when many ask at once.

    python -m benchmarks.server --clients 1,4,16 --seconds 60,60,300

First what the server costs: on the way of pieces from a session to a client, where a stand-in for
the ring computes nothing, and beside a real ring that is asked without it, in turns. Then the load:
clients that ask the built-in prompts, greedily, over and over, one in four of which goes away in
the middle. Every other answer must be what the same server answers when it is asked alone, memory
must not grow, and nothing may be left. Ends with status 1 if one of these does not hold.
"""

import argparse
import asyncio
import json
import sys
from typing import Any

from benchmarks import server_cost
from benchmarks.machine import machine
from benchmarks.served import GARDENER, served
from benchmarks.server_load import alone, load, questions

COLUMNS = (
    *("clients", "answers", "left", "tokens/s", "first token p50", "p95"),
    *("between pieces p50", "p95", "a token p50", "p95", "MiB", "then"),
)


async def loads(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Of each number of clients, the figures."""
    clients = [int(each) for each in options.clients.split(",")]
    seconds = [float(each) for each in options.seconds.split(",")]
    seconds *= len(clients) if len(seconds) == 1 else 1
    command = ("serve", "--local", str(options.stages), "--port", "0")
    found = []
    with served(*GARDENER, *command, *options.serve.split()) as server:
        right = await alone(server.port, questions(options.prompts), options.tokens)
        for each, length in zip(clients, seconds, strict=True):
            run = await load(server, right, each, length)
            found.append(run.figures())
            print(f"{each} clients are done", file=sys.stderr)
    return found


def table(found: list[dict[str, Any]]) -> None:
    rows: list[tuple[str, ...]] = [COLUMNS]
    for each in found:
        waits = [each[name] for name in ("first_token_ms", "between_pieces_ms", "a_token_ms")]
        memory = each["memory_mib"]
        rows.append(
            (
                *map(str, (each["clients"], each["answers"], each["left"])),
                str(each["tokens_per_second"]),
                *(f"{wait[name]:.1f}" for wait in waits for name in ("p50", "p95")),
                *(str(sum(memory[name])) for name in ("first_fifth", "last_fifth")),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print("times in ms; MiB of the server and its stages: in the first and in the last fifth")


def wrong(found: list[dict[str, Any]]) -> list[str]:
    """What must not be, in sentences."""
    said = []
    for each in found:
        who = f"{each['clients']} clients"
        said += [f"{who}: {fault}" for fault in each["faults"]]
        said += [f"{who}: left behind: {what}" for what in each["remains"]]
        if not each["flat"]:
            said.append(f"{who}: memory grew: {each['memory_mib']} MiB")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", default="1,4,16", help="how many at once, in turns")
    parser.add_argument("--seconds", default="60", help="of each of these, or of all")
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=48, help="most of an answer")
    parser.add_argument("--prompts", type=int, default=3, help="of each kind of the built-in ones")
    parser.add_argument("--repeat", type=int, default=15, help="answers each way, for the cost")
    parser.add_argument("--policy", default="plain", help="where the cost is measured")
    parser.add_argument("--only", choices=("cost", "load"), help="leave the other out")
    parser.add_argument("--serve", default="", help="more options for `gardener serve`")
    parser.add_argument("--json", help="a file for all figures")
    options = parser.parse_args()
    print(json.dumps(machine()))
    found: dict[str, Any] = {"machine": machine()}
    if options.only != "load":
        cost = server_cost.measure(options.repeat, options.tokens, options.stages, options.policy)
        found["cost"] = cost
    complaints: list[str] = []
    if options.only != "cost":
        found["load"] = asyncio.run(loads(options))
        table(found["load"])
        complaints = wrong(found["load"])
    if options.json:
        with open(options.json, "w") as file:
            json.dump(found, file, indent=1)
    for each in complaints:
        print(f"WRONG: {each}")
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
