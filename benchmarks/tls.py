"""What secured links cost: a segment on its way, and the tokens/s of a ring, with keys and without.

Part 1: two links in one process, over loopback. A segment of hidden states goes from one end to the
other; the time is all that both spend on it, with keys and without by turns. Part 2: two rings of
the same model stand at the same time, each stage a process, one ring with keys and one without.
They are asked the same by turns, so that what else the machine does meets both; the figure is the
median of the ratios of the pairs. The texts have to be the same.

Run from the checkout: `python -m benchmarks.tls [--stages 2] [--pairs 5] [--json]`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.machine import machine
from gardener.cli.program import ignore
from gardener.decoding.policy import Bounds, make
from gardener.errors import GardenerError
from gardener.holder.answer import Wanted, answer
from gardener.keys.folder import init
from gardener.net.dial import dial
from gardener.net.keys import read_keys
from gardener.net.link import Link
from gardener.net.listen import listen
from gardener.protocol.messages import Card, Message, Segment
from gardener.protocol.tensors import Tensor
from gardener.rings.open import open_ring
from gardener.rings.opened import OpenRing
from gardener.rings.settings import RingSettings

MODEL = "smollm2-135m"
PROMPT = "Write a long story about a harbour."
SHAPES = ((1, 576), (16, 576), (64, 4096))  # rows, width


class End:
    """One end of a link, which notes what comes."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.met_one = asyncio.Event()
        self.heard_some = asyncio.Event()

    def met(self, link: Link) -> None:
        self.links.append(link)
        self.met_one.set()

    def heard(self, link: Link, message: Message) -> None:
        self.heard_some.set()

    def lost(self, link: Link, error: GardenerError) -> None:
        raise SystemExit(str(error))


@asynccontextmanager
async def linked(keys: Path | None) -> AsyncIterator[tuple[Link, End]]:
    """A link within this process, and who hears what is sent on it."""
    names = ("stage-1", "stage-2")
    one, two = (None if keys is None else read_keys(keys, each, time.time()) for each in names)
    cards = [Card(stage, "tls", "0", 0, 1, 1, 1, "tls", "float32", "none", 0) for stage in (1, 2)]
    above, below = End(), End()
    listener = await listen(
        "127.0.0.1:0", cards[1], below, admit=lambda _: None, met=below.met, keys=two
    )
    link = await dial(
        listener.address,
        cards[0],
        above,
        admit=lambda _: None,
        patience=5.0,
        waiting=ignore,
        keys=one,
    )
    await below.met_one.wait()
    await listener.close()
    yield link, below
    await link.abort("the benchmark is over")
    with contextlib.suppress(GardenerError):
        await below.links[0].abort("the benchmark is over")


async def crossings(keys: Path, runs: int) -> list[dict[str, float]]:
    """Microseconds that a segment takes from `send` to `heard`, with keys and without, by shape."""
    found = []
    async with linked(None) as plain, linked(keys) as secured:
        for rows, width in SHAPES:
            ids = tuple(range(rows))
            hidden = Tensor("float32", (rows, width), os.urandom(4 * rows * width))
            segment = Segment(1, 1, ids, ids, ids, ids, hidden, ())
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(runs):
                for taken, (link, below) in zip(times, (plain, secured), strict=True):
                    below.heard_some.clear()
                    begin = time.perf_counter()
                    link.send(segment)
                    await below.heard_some.wait()
                    taken.append(1e6 * (time.perf_counter() - begin))
            without, with_keys = map(statistics.median, times)
            found.append(
                {"rows": rows, "width": width, "plain_us": without, "secured_us": with_keys}
            )
    return found


@contextmanager
def nodes(ports: list[int], keys: Path | None) -> Iterator[None]:
    """The stages of a ring as processes; the holder's port is the first."""
    stages = len(ports) - 1
    secured = ("--keys", str(keys)) if keys else ()
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "gardener.cli.start", "--leash", "--no-view"),
                *("--stage", str(stage), "--stages", str(stages), "--threads", "1"),
                *("--listen", f"127.0.0.1:{ports[stage]}", "--model", MODEL),
                *("--peer", f"127.0.0.1:{ports[(stage + 1) % len(ports)]}", *secured),
            ],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for stage in range(1, stages + 1)
    ]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.communicate(timeout=20)


async def rate(ring: OpenRing, policy: str, tokens: int) -> tuple[float, list[int]]:
    """Tokens/s of an answer after its first token, and the tokens."""
    wanted = Wanted(ring.prompter.encode(PROMPT), tokens)
    got = await answer(ring.holder, ring.prompter, make(policy, Bounds()), wanted)
    if got.error:
        raise SystemExit(got.error)
    return (len(got.tokens) - 1) / got.figures.decode, list(got.tokens)


async def rings(keys: Path, ports: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """The rates of both rings by turns, and the ratio."""
    half = len(ports) // 2
    found: dict[str, list[float]] = {"plain": [], "secured": []}
    async with AsyncExitStack() as stack:
        opened = {}
        for name, own, folder in (
            ("plain", ports[:half], None),
            ("secured", ports[half:], keys),
        ):
            stack.enter_context(nodes(own, folder))
            settings = RingSettings(
                peer=f"127.0.0.1:{own[1]}",
                listen=f"127.0.0.1:{own[0]}",
                model=MODEL,
                keys=folder,
                keep_prefixes=False,
            )
            opened[name] = await stack.enter_async_context(open_ring(settings))
        for ring in opened.values():
            await rate(ring, options.policy, options.tokens)  # to warm up
        for turn in range(options.pairs):
            order = list(opened) if turn % 2 else list(opened)[::-1]
            texts = []
            for name in order:
                speed, text = await rate(opened[name], options.policy, options.tokens)
                found[name].append(speed)
                texts.append(text)
            assert texts[0] == texts[1], "the texts differ"
    ratios = [with_keys / without for without, with_keys in zip(*found.values(), strict=True)]
    return {**found, "ratio": statistics.median(ratios), "ratios": ratios}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(sock.getsockname()[1]) for sock in socks]


def main() -> None:
    parser = argparse.ArgumentParser(description="What secured links cost.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--stages", type=int, default=2, help="of each ring; 0: no rings")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--policy", default="plain")
    parser.add_argument("--runs", type=int, default=500, help="segments of each shape")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        init(keys, "benchmark", max(options.stages, 2), 0, 1)
        report["crossings"] = uvloop.run(crossings(keys, options.runs))
        if options.stages:
            ports = free_ports(2 * (options.stages + 1))
            report["rings"] = uvloop.run(rings(keys, ports, options))
    if options.json:
        print(json.dumps(report))
        return
    print(f"load {report['load']:.1f}; a segment from one end to the other, median µs")
    for each in report["crossings"]:
        shape = f"{each['rows']}x{each['width']}"
        print(f"{shape:>9} plain {each['plain_us']:8.1f}  with keys {each['secured_us']:8.1f}")
    if found := report.get("rings"):
        for name in ("plain", "secured"):
            print(f"{name:>9}: {' '.join(f'{speed:.2f}' for speed in found[name])} tokens/s")
        print(f"with keys {found['ratio']:.3f} times as fast as without (median of the pairs)")


if __name__ == "__main__":
    main()
