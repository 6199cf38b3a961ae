"""A client in a process of its own: asks a server as each line on standard input says, and answers
with a line: seconds to the first piece, and for each later token."""

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.sse import chat


@dataclass(frozen=True)
class At:
    """A server without a key."""

    port: int
    key: str = ""


async def _one(question: dict[str, Any]) -> tuple[float, float]:
    port, prompt = question.pop("port"), question.pop("prompt")
    heard = await chat(At(port), prompt, question.pop("tokens"), **question)
    assert heard.done, heard.error
    return heard.first, heard.per_token(heard.tokens)


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(asyncio.run(_one(json.loads(line)))), flush=True)
