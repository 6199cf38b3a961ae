"""What the server adds to an answer: on its way alone, and beside the same ring without it."""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Self, TypeAlias

import gardener
from benchmarks.paced import FIRST, PROMPT
from benchmarks.served import Served, served
from benchmarks.sse import Heard, chat
from gardener.rings.opened import OpenRing
from gardener.serve.keeper import RingKeeper
from gardener.serve.server import serve
from gardener.serve.settings import ServeSettings

PACED = ("-m", "benchmarks.paced")

Seconds: TypeAlias = tuple[float, float]
"""To the first token of an answer, and of each later one."""


@dataclass(frozen=True)
class Cost:
    """Milliseconds, medians; of what differs from answer to answer, the quartiles too.

    first      added to the time to the first token; the prompt is made tokens of either way
    later      on the way of every later piece: it comes so much after it was there
    processor  of the server's core for a piece, which the ring's holder then lacks
    """

    first: list[float]
    later: list[float]
    processor: float


@dataclass(frozen=True)
class Beside:
    """Milliseconds of the same question, asked in turns; each [lower quartile, median, upper one].

    `alone`: the ring is asked from inside its process, as `gardener generate` asks it. `served`:
    the same one through the server, for a client in another process. `added`: the difference, turn
    by turn.
    """

    first_alone: list[float]
    first_served: list[float]
    token_alone: list[float]
    token_served: list[float]
    first_added: list[float]
    token_added: list[float]

    @classmethod
    def of(cls, alone: Sequence[Seconds], through: Sequence[Seconds]) -> Self:
        """From the seconds to the first token, and of each later one, turn by turn."""
        added = [
            (served[0] - own[0], served[1] - own[1])
            for own, served in zip(alone, through, strict=True)
        ]
        columns = [
            quartiles([pair[place] for pair in pairs])
            for place in (0, 1)
            for pairs in (alone, through, added)
        ]
        first_alone, first_served, first_added, token_alone, token_served, token_added = columns
        return cls(first_alone, first_served, token_alone, token_served, first_added, token_added)


def quartiles(seconds: list[float]) -> list[float]:
    """In milliseconds."""
    return [round(1e3 * each, 4) for each in statistics.quantiles(seconds, n=4)]


async def way(repeat: int, tokens: int, tick: float) -> Cost:
    """The way of pieces from a session to a client, where nothing is computed."""
    options = ("--tick", str(tick), "--tokens", str(tokens))
    direct = _direct(*options, "--direct", str(repeat))
    with served(*PACED, *options) as server:
        await chat(server, PROMPT, tokens)
        before = _processor(server)
        answers = [await chat(server, PROMPT, tokens) for _ in range(repeat)]
        spent = (_processor(server) - before) / (repeat * tokens)
        assert not server.fault, server.fault
    assert all(len(each.pieces) == tokens for each in answers)
    return Cost(
        quartiles([each.first - FIRST - direct["prompt"] for each in answers]),
        quartiles([late for each in answers for late in _late(each)]),
        round(1e3 * (spent - direct["piece"]), 4),
    )


def _direct(*options: str) -> dict[str, float]:
    """The same without a server, see `paced.direct`: what a timer, an event loop and the tokenizer
    take is not its own."""
    done = subprocess.run(
        [sys.executable, *PACED, *options], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _late(heard: Heard) -> list[float]:
    """Seconds that each piece was on its way, which says when it was there."""
    return [at - float(said) for at, said in zip(heard.times, heard.pieces, strict=True)][1:]


def _processor(server: Served) -> float:
    times = server.processes()[0].cpu_times()
    return float(times.user + times.system)


async def beside(repeat: int, tokens: int, stages: int, policy: str) -> Beside:
    """The same question to one ring, from inside its process and through the server, in turns."""
    settings = gardener.RingSettings(local=stages, policies=(policy,))
    alone: list[Seconds] = []
    through: list[Seconds] = []
    async with _serving(settings) as (ring, port), _client() as ask:
        for turn in range(repeat + 1):
            one = await _asked(ring, tokens, policy)
            question = {"prompt": PROMPT, "tokens": tokens, "policy": policy, "ignore_eos": True}
            other = await ask({"port": port, **question})
            if turn:  # the first one computes the prompt, which is kept
                alone.append(one)
                through.append(other)
    return Beside.of(alone, through)


@asynccontextmanager
async def _serving(settings: gardener.RingSettings) -> AsyncIterator[tuple[OpenRing, int]]:
    """A ring, and the port at which this very process serves it, as `gardener serve` does."""
    begun: asyncio.Future[tuple[RingKeeper, int]] = asyncio.get_running_loop().create_future()

    def note(keeper: RingKeeper, address: str) -> None:
        begun.set_result((keeper, int(address.rpartition(":")[2])))

    taken = asyncio.Event()

    def say(line: str) -> None:
        if line == "requests are taken":
            taken.set()

    serving = asyncio.create_task(serve(ServeSettings(port=0), settings, say, say, note))
    try:
        keeper, port = await begun
        await taken.wait()
        assert isinstance(keeper.ring, OpenRing)
        yield keeper.ring, port
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


Ask: TypeAlias = Callable[[dict[str, object]], Awaitable[Seconds]]


@asynccontextmanager
async def _client() -> AsyncIterator[Ask]:
    """A client in a process of its own: what it takes to read an answer is not the server's."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.asking_child"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    stdin, stdout = child.stdin, child.stdout

    async def ask(question: dict[str, object]) -> Seconds:
        stdin.write(json.dumps(question).encode() + b"\n")
        first, token = json.loads(await stdout.readline())
        return first, token

    try:
        yield ask
    finally:
        stdin.close()
        await child.wait()


async def _asked(ring: gardener.OpenRing, tokens: int, policy: str) -> Seconds:
    """Seconds to the first piece with text, and for each later token."""
    begin = time.perf_counter()
    session = ring.ask(PROMPT, max_new_tokens=tokens, policy=policy, ignore_eos=True)
    times = [time.perf_counter() async for piece in session if piece.text]
    return times[0] - begin, (times[-1] - times[0]) / (len(session.tokens) - 1)


def measure(repeat: int, tokens: int, stages: int, policy: str) -> dict[str, object]:
    """Both, as an object for JSON; prints them."""
    cost = asyncio.run(way(repeat, 100, 0.01))
    print(
        f"the way alone, in ms: {cost.first[1]:.3f} to the first token, {cost.later[1]:.3f} to "
        f"later pieces, {cost.processor:.3f} of the processor a piece (quartiles {cost.first}, "
        f"{cost.later})"
    )
    found = asyncio.run(beside(repeat, tokens, stages, policy))
    print(
        f"{stages} stages, {policy}, {repeat} answers of {tokens} tokens each way, in ms: "
        f"{found.first_added} to the first token ({found.first_alone} alone, {found.first_served} "
        f"served), {found.token_added} a token ({found.token_alone} alone, {found.token_served} "
        "served)"
    )
    return {"way": asdict(cost), "beside": asdict(found)}
