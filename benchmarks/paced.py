"""A server whose ring computes nothing: its pieces come at fixed times, and say when they came.

    python -m benchmarks.paced --tick 0.01

What the way from a session to a client costs is all that is left. `--direct N` asks it N times
without HTTP instead, and prints the seconds of the processor for a piece.
"""

import argparse
import asyncio
import contextlib
import cProfile
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import uvloop

from gardener.decoding.events import Moment
from gardener.decoding.limits import Counts
from gardener.holder.piece import Piece
from gardener.holder.prompter import Prompter
from gardener.model.checkpoint.resolve import resolve
from gardener.protocol.messages import Card
from gardener.protocol.sampling import GREEDY
from gardener.rings.settings import RingSettings
from gardener.serve import server
from gardener.serve.settings import ServeSettings

FIRST = 0.05
"""Seconds until the first piece."""

PROMPT = "Write a story about a gardener who teaches a robot to grow tomatoes."


class PacedSession:
    """A piece every `tick` seconds, which holds when it was there, in seconds of
    `time.perf_counter`: that is one clock for all processes here."""

    def __init__(self, tokens: Sequence[int], count: int, tick: float) -> None:
        policy = SimpleNamespace(name="paced")
        self.speculation = SimpleNamespace(
            prompt=tokens, counts=Counts(), policy=policy, request=1, moment=Moment()
        )
        self.number = 1
        self.finish_reason: str | None = None
        self.cached_tokens, self.waited, self.sampling = 0, 0.0, GREEDY
        self._left, self._tick = count, tick
        self._due = time.perf_counter() + FIRST

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        if self.finish_reason:
            raise StopAsyncIteration
        await asyncio.sleep(self._due - time.perf_counter())
        self._due += self._tick
        self._left -= 1
        if not self._left:
            self.finish_reason = "length"
        return Piece((1,), f"{time.perf_counter():.7f} ")

    def close(self) -> None:
        """End it."""
        self.finish_reason = self.finish_reason or "abandoned"

    def fail(self, error: Exception, reason: str = "failed") -> None:
        """End it."""
        self.finish_reason = self.finish_reason or reason


class PacedRing:
    """Stands for an `OpenRing`."""

    def __init__(self, folder: Path, tick: float) -> None:
        self.prompter, self._tick = Prompter(folder), tick
        self.stages = (Card(1, "paced", "", 0, 1, 1, 1, "", "float32", "none", 0),)
        self.exactness = "it computes nothing"
        self.holder = SimpleNamespace()
        self.waiting = 0

    def check_room(self) -> None:
        """There always is some."""

    def ask_tokens(
        self, tokens: Sequence[int], *, max_new_tokens: int, **more: Any
    ) -> PacedSession:
        """See `OpenRing.ask_tokens`."""
        return PacedSession(tokens, max_new_tokens, self._tick)


class PacedKeeper:
    """Stands for a `RingKeeper`."""

    def __init__(self, ring: PacedRing) -> None:
        self.ring, self.why, self.usual = ring, "", GREEDY

    async def run(self) -> None:
        """Until it is cancelled."""
        await asyncio.Event().wait()


async def direct(ring: PacedRing, answers: int, tokens: int) -> dict[str, float]:
    """Seconds of the processor for a piece that nobody is sent; and those, the median, for making
    tokens of a prompt, which who asks the ring itself waits for too."""
    prompts = []
    begin = time.process_time()
    for _ in range(answers):
        asked = time.perf_counter()
        prompt = ring.prompter.encode(PROMPT)
        prompts.append(time.perf_counter() - asked)
        async for _ in ring.ask_tokens(prompt, max_new_tokens=tokens):
            pass
    piece = (time.process_time() - begin) / (answers * tokens)
    return {"piece": piece, "prompt": statistics.median(prompts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tick", type=float, default=0.01)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--direct", type=int, default=0)
    parser.add_argument("--profile", help="where to write what the loop spends its time on")
    options = parser.parse_args()
    ring = PacedRing(resolve("smollm2-135m", None, say=print), options.tick)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if options.direct:
            print(json.dumps(runner.run(direct(ring, options.direct, options.tokens))))
            return
        keeper = PacedKeeper(ring)
        setattr(server, "RingKeeper", lambda *settings: keeper)  # noqa: B010  # typed as a class
        serving = server.serve(
            ServeSettings(port=0),
            RingSettings(local=1),
            lambda line: print(line, file=sys.stderr, flush=True),
            lambda line: None,
        )
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        with contextlib.suppress(KeyboardInterrupt):
            runner.run(serving)
        if options.profile:
            profile.disable()
            profile.dump_stats(options.profile)


if __name__ == "__main__":
    main()
