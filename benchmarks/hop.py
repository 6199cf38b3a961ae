"""What one hop between two stages costs on this machine, over loopback, and what a ring adds.

Part 1: two processes with a link each way, as in a ring of two. A segment goes there and back; half
of that is one hop: serialise, send, receive, parse. The hidden states are random bytes, so no
tensor is involved. Part 2: a ring on loopback decodes plainly with the default model; what a token
takes beyond the sum of what the stages computed is what the ring adds.

Run from the checkout: `python -m benchmarks.hop [--json] [--stages 2 3]`.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, fields
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from benchmarks.machine import machine
from gardener.cli.program import ignore
from gardener.decoding.policy import Bounds, make
from gardener.errors import GardenerError
from gardener.holder.answer import Answer, Wanted, answer
from gardener.net.dial import dial
from gardener.net.link import Link
from gardener.net.listen import listen
from gardener.protocol.messages import Card, Message, Segment, Timing
from gardener.protocol.tensors import Tensor
from gardener.protocol.wire import Decoder, encode
from gardener.rings.open import open_ring
from gardener.rings.settings import RingSettings

SHAPES = ((16, 576), (64, 4096))  # rows, width
WARM_UP = 20  # runs that are not counted

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


@dataclass(frozen=True)
class Cost:
    """Medians in milliseconds for one segment of `rows` hidden states of `width` in bfloat16."""

    rows: int
    width: int
    bytes: int
    runs: int
    encode: float
    decode: float
    hop: float


@dataclass(frozen=True)
class Overhead:
    """Milliseconds per token of plain decoding: in all, computed by the stages, and the rest; and
    the rest as a share of all. The rest is hops, bookkeeping and hand-overs between threads."""

    token: float
    compute: float
    added: float
    share: float


def segment(rows: int, width: int) -> Segment:
    """A segment as it looks between two stages in the middle of the ring."""
    ids = tuple(range(1000, 1000 + rows))
    hidden = Tensor("bfloat16", (rows, width), os.urandom(rows * width * 2))
    return Segment(1, 1, ids, ids, ids, ids, hidden, (Timing(50, 5000),))


def median_ms(runs: int, action: Callable[[], object]) -> float:
    """Median time of `action`, in milliseconds."""
    times = []
    for _ in range(WARM_UP + runs):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times[WARM_UP:])


class Side:
    """One of the two processes: hears from its upstream link, says on its downstream one."""

    def __init__(self) -> None:
        self.downstream: Link | None = None
        self.upstream: Link | None = None
        self.met = asyncio.Event()
        self.over = asyncio.Event()
        self.back: asyncio.Future[float] | None = None

    def heard(self, link: Link, message: Message) -> None:
        """Send it on; or, if it has come home, note when."""
        if self.back is not None:
            self.back.set_result(time.perf_counter())
        elif self.downstream is not None:
            self.downstream.send(message)

    def lost(self, link: Link, error: GardenerError) -> None:
        self.over.set()

    def meet(self, link: Link) -> None:
        self.upstream = link
        self.met.set()

    async def close(self) -> None:
        for link in (self.downstream, self.upstream):
            if link is not None:
                await link.close("the benchmark is over")


def card(stage: int) -> Card:
    return Card(stage, "hop", "0", 0, 1, 1, 1, "hop", "bfloat16", "none", 0)


async def join(side: Side, stage: int, exchange: Callable[[int], Coroutine[Any, Any, int]]) -> None:
    """Link both ways with the other process; `exchange` trades our port for the other one."""
    listener = await listen("127.0.0.1:0", card(stage), side, admit=lambda _: None, met=side.meet)
    port = await exchange(listener.address.port)
    side.downstream = await dial(
        f"127.0.0.1:{port}", card(stage), side,
        admit=lambda _: None, patience=20.0, waiting=lambda _: None,
    )  # fmt: skip
    await side.met.wait()
    await listener.close()


async def echo(pipe: Connection) -> None:
    """The other process: sends everything back until the links end."""

    async def exchange(port: int) -> int:
        pipe.send(port)
        return int(await asyncio.to_thread(pipe.recv))

    side = Side()
    await join(side, 2, exchange)
    await side.over.wait()
    await side.close()


def run_echo(pipe: Connection, loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(echo(pipe))


async def round_trip(side: Side, sent: Segment) -> float:
    """Seconds for `sent` to the other process and back."""
    assert side.downstream is not None
    side.back = asyncio.get_running_loop().create_future()
    begin = time.perf_counter()
    side.downstream.send(sent)
    return await side.back - begin


async def hops(pipe: Connection, runs: int) -> list[Cost]:
    """Measure every shape against a running `echo`."""

    async def exchange(port: int) -> int:
        other = int(await asyncio.to_thread(pipe.recv))
        pipe.send(port)
        return other

    side, costs = Side(), []
    await join(side, 1, exchange)
    for rows, width in SHAPES:
        sent = segment(rows, width)
        times = [await round_trip(side, sent) for _ in range(WARM_UP + runs)]
        frame, decoder = encode(sent), Decoder()
        costs.append(
            Cost(
                rows, width, len(frame), runs,
                encode=median_ms(runs, lambda sent=sent: encode(sent)),  # type: ignore[misc]
                decode=median_ms(runs, lambda f=frame, d=decoder: list(d.feed(f))),  # type: ignore[misc]
                hop=1e3 * statistics.median(times[WARM_UP:]) / 2,
            )
        )  # fmt: skip
    await side.close()
    return costs


def measure_hops(runs: int, loop: str) -> list[Cost]:
    """Part 1: one hop, with the other side in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_echo, args=(theirs, loop), daemon=True)
    process.start()
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        costs = runner.run(hops(ours, runs))
    process.join(10)
    return costs


async def overheads(stages: int, runs: int, dtype: str) -> list[Overhead]:
    """Part 2: the same answer `runs` times, and once to warm up, by plain decoding."""
    settings = RingSettings(
        model="smollm2-135m",
        revision=None,
        local=stages,
        peer=None,
        listen="127.0.0.1:0",
        dtype=dtype,
        device="cpu",
        threads=1,
        quant="none",
        patience=120.0,
    )
    found = []
    async with open_ring(settings, ignore, ignore, ignore) as ring:
        holder, prompter = ring.holder, ring.prompter
        wanted = Wanted(prompter.encode("Write a long story about a harbour."), 128)
        policy = make("plain", Bounds())
        for _ in range(runs + 1):
            got = await answer(holder, prompter, policy, wanted)
            if got.error:
                raise SystemExit(got.error)
            found.append(overhead(got))
    return found[1:]


def overhead(got: Answer) -> Overhead:
    """What the ring adds to a token, from the times that its verdicts carried."""
    segments = got.figures.stage_times.segments
    token = 1e3 * got.figures.decode / segments
    compute = 1e3 * sum(got.figures.stage_times.compute) / segments
    return Overhead(token, compute, token - compute, (token - compute) / token)


def summary(stages: int, dtype: str, found: Sequence[Overhead]) -> dict[str, object]:
    """Medians over the runs."""
    names = [field.name for field in fields(Overhead)]
    medians = {name: statistics.median(getattr(each, name) for each in found) for name in names}
    return {"stages": stages, "dtype": dtype, "runs": len(found), **medians}


def show(report: dict[str, Any]) -> None:
    """The report as a small table."""
    where = report["machine"]
    print(f"{where['cpu']}, {where['cores']} cores, Python {where['python']}, {report['loop']}")
    print("one hop over loopback, medians in ms\n")
    print(f"{'hidden':>9} {'bytes':>8} {'runs':>5} {'encode':>7} {'decode':>7} {'hop':>7}")
    for cost in report["hops"]:
        shape = f"{cost['rows']}x{cost['width']}"
        print(
            f"{shape:>9} {cost['bytes']:>8} {cost['runs']:>5} "
            f"{cost['encode']:>7.3f} {cost['decode']:>7.3f} {cost['hop']:>7.3f}"
        )
    for ring in report["rings"]:
        print(
            f"\n{ring['stages']} stages, {ring['dtype']}, plain: {ring['token']:.2f} ms a token, "
            f"of which {ring['compute']:.2f} ms are computed; the ring adds {ring['added']:.2f} "
            f"ms, {ring['share']:.1%} (median of {ring['runs']} runs)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of one hop between two stages.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=500, help="segments measured per shape")
    parser.add_argument("--loop", choices=LOOPS, default="uvloop")
    parser.add_argument("--stages", type=int, nargs="*", default=[2], help="rings to measure")
    parser.add_argument("--ring-runs", type=int, default=5, help="answers measured per ring")
    parser.add_argument("--dtype", default="float32", help="what the stages compute in")
    options = parser.parse_args()
    hop_costs = [asdict(cost) for cost in measure_hops(options.runs, options.loop)]
    rings = [
        summary(n, options.dtype, uvloop.run(overheads(n, options.ring_runs, options.dtype)))
        for n in options.stages
    ]
    report = {"machine": machine(), "loop": options.loop, "hops": hop_costs, "rings": rings}
    if options.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
