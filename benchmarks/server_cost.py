"""What the server adds to an answer: on its way alone, and beside the same ring without it."""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import gardener
from benchmarks.paced import FIRST, PROMPT
from benchmarks.served import GARDENER, Served, served
from benchmarks.sse import Heard, chat

PACED = ("-m", "benchmarks.paced")


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

    `alone`: a ring that is asked from inside a process, as `gardener generate` asks it. `served`:
    one that `gardener serve` asks, for a client.
    """

    first_alone: list[float]
    first_served: list[float]
    token_alone: list[float]
    token_served: list[float]

    @property
    def added(self) -> tuple[float, float]:
        """To the first token, and to each later one: between medians."""
        return (
            self.first_served[1] - self.first_alone[1],
            self.token_served[1] - self.token_alone[1],
        )


def quartiles(seconds: list[float]) -> list[float]:
    """In milliseconds."""
    return [round(1e3 * each, 4) for each in statistics.quantiles(seconds, n=4)]


async def way(repeat: int, tokens: int, tick: float) -> Cost:
    """The way of pieces from a session to a client, where nothing is computed."""
    options = ("--tick", str(tick), "--tokens", str(tokens))
    direct = _direct(*options, "--direct", str(repeat))
    with served(*PACED, *options) as server:
        await chat(server.port, PROMPT, tokens)
        before = _processor(server)
        answers = [await chat(server.port, PROMPT, tokens) for _ in range(repeat)]
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
    """The same question to a ring here and to a server, in turns."""
    settings = gardener.RingSettings(local=stages, policies=(policy,))
    alone: list[tuple[float, float]] = []
    through: list[tuple[float, float]] = []
    command = ("serve", "--local", str(stages), "--port", "0", "--policy", policy)
    with served(*GARDENER, *command) as server:
        async with gardener.open_ring(settings) as ring:
            for turn in range(repeat + 1):
                one = await _asked(ring, tokens, policy)
                heard = await chat(server.port, PROMPT, tokens, ignore_eos=True)
                assert heard.done, heard.error
                if turn:  # the first one computes the prompt, which is kept
                    alone.append(one)
                    through.append((heard.first, heard.per_token(heard.tokens)))
    firsts, rests = zip(*alone, strict=True)
    served_firsts, served_rests = zip(*through, strict=True)
    return Beside(
        quartiles(list(firsts)),
        quartiles(list(served_firsts)),
        quartiles(list(rests)),
        quartiles(list(served_rests)),
    )


async def _asked(ring: gardener.OpenRing, tokens: int, policy: str) -> tuple[float, float]:
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
    first, token = found.added
    print(
        f"{stages} stages, {policy}, {repeat} answers of {tokens} tokens each way, in ms: "
        f"{first:+.2f} to the first token ({found.first_alone} alone, {found.first_served} "
        f"served), {token:+.3f} a token ({found.token_alone} alone, {found.token_served} served)"
    )
    return {"way": asdict(cost), "beside": {**asdict(found), "added": [first, token]}}
