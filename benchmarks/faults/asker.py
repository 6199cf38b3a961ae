"""A holder as a process of its own, which opens a ring by the Python API and asks it what it is
told to.

    python -m benchmarks.faults.asker --peer HOST:PORT --listen HOST:PORT

It reads lines of JSON: first an empty object, on which it opens the ring, then a question each. It
writes lines of JSON: what it has imported, that the ring is closed, and pieces of answers.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gardener
from gardener.errors import GardenerError
from gardener.holder.holder import Holder
from gardener.protocol.messages import Card
from gardener.rings.open import open_ring
from gardener.rings.opened import OpenRing

LONGEST_LINE = 2**20


def tell(**fields: Any) -> None:
    """A line on standard output, with the time."""
    print(json.dumps({"at": time.monotonic(), **fields}), flush=True)


def say(line: str) -> None:
    """A line on standard error."""
    print(line, file=sys.stderr, flush=True)


async def answer(ring: OpenRing, question: dict[str, Any]) -> None:
    """Ask this, and tell every piece, and how it ended."""
    number = question["number"]
    sampling = gardener.Sampling(temperature=question["temperature"], seed=question["seed"])
    try:
        async with ring.ask(
            question["prompt"],
            max_new_tokens=question["tokens"],
            policy=question["policy"],
            sampling=sampling,
            ignore_eos=True,
        ) as session:
            async for piece in session:
                tell(number=number, tokens=piece.tokens, text=piece.text)
        tell(number=number, finish=session.finish_reason)
    except GardenerError as error:
        tell(number=number, finish="error", error=f"{type(error).__name__}: {error}")


async def lines() -> asyncio.StreamReader:
    """Standard input."""
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def serve(settings: gardener.RingSettings) -> None:
    """Until standard input ends."""
    told = await lines()
    tell(imported=True)
    if not await told.readline():
        return
    closing = Holder.connect

    async def timed(holder: Holder) -> tuple[Card, ...]:
        began = time.monotonic()
        cards = await closing(holder)
        tell(closed=time.monotonic() - began)
        return cards

    began = time.monotonic()
    with patch.object(Holder, "connect", timed):
        async with open_ring(settings, say, say) as ring:
            tell(stands=time.monotonic() - began)
            answers = set()
            while line := await told.readline():
                task = asyncio.create_task(answer(ring, json.loads(line)))
                answers.add(task)
                task.add_done_callback(answers.discard)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--keep-prefixes", action="store_true")
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--insecure", action="store_true")
    options = parser.parse_args()
    settings = gardener.RingSettings(
        peer=options.peer,
        listen=options.listen,
        keep_prefixes=options.keep_prefixes,
        keys=options.keys,
        insecure=options.insecure,
    )
    with asyncio.Runner(loop_factory=settings.loop()) as runner:
        try:
            runner.run(serve(settings))
        except GardenerError as error:
            say(f"error: {error}")
            sys.exit(1)


if __name__ == "__main__":
    main()
