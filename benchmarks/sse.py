"""A client that asks the server as little as can be: what it adds itself is not the server's.

It opens a connection for each answer, and reads lines: those of the events, and between them the
sizes of chunks, which it skips.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

MODEL = "smollm2-135m"


class AnyServer(Protocol):
    """What clients must know of it. `key`: empty where it asks for none."""

    @property
    def port(self) -> int: ...

    @property
    def key(self) -> str: ...


@dataclass
class Heard:
    """An answer as a client had it. Times are in seconds of `time.perf_counter`.

    begun   when it was asked
    times   when each piece of text came
    pieces  the text
    follow  is told each piece as it comes
    comments  of the stream, which say that the answer is still under way
    """

    begun: float
    status: int = 0
    times: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    finish: str | None = None
    tokens: int = 0
    error: str = ""
    done: bool = False
    comments: list[str] = field(default_factory=list)
    follow: Callable[[str], None] = lambda text: None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)

    @property
    def first(self) -> float:
        """Seconds until the first piece."""
        return self.times[0] - self.begun

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]

    def per_token(self, tokens: int) -> float:
        """Seconds for each of `tokens` but the first."""
        return (self.times[-1] - self.times[0]) / max(tokens - 1, 1)


async def chat(
    server: AnyServer,
    prompt: str,
    new_tokens: int,
    leave_after: int | None = None,
    heard: Heard | None = None,
    **more: Any,
) -> Heard:
    """Ask for a greedy answer, streamed. `leave_after`: pieces after which the client goes away.
    `heard`: what to fill, for one who looks at it meanwhile."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": new_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **more,
    }
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n"
        f"connection: close\r\nauthorization: Bearer {server.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    heard = heard or Heard(time.perf_counter())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(head.encode() + data)
        heard.status = int((await reader.readline()).split()[1])
        while leave_after is None or len(heard.pieces) < leave_after:
            line = await reader.readline()
            if not line:
                break
            if line.startswith(b"data: "):
                _event(heard, line[6:].strip())
            elif line.startswith(b":"):
                heard.comments.append(line[1:].decode().strip())
            elif line.startswith(b"{"):  # an answer that was refused
                heard.error = line.decode()
    finally:
        writer.transport.abort()
    return heard


def _event(heard: Heard, data: bytes) -> None:
    now = time.perf_counter()
    if data == b"[DONE]":
        heard.done = True
        return
    event = json.loads(data)
    if "error" in event:
        heard.error = event["error"]["message"]
        return
    if event.get("usage"):
        heard.tokens = event["usage"]["completion_tokens"]
    for choice in event["choices"]:
        if choice["delta"].get("content"):
            heard.times.append(now)
            heard.pieces.append(choice["delta"]["content"])
            heard.follow(heard.pieces[-1])
        heard.finish = choice["finish_reason"] or heard.finish
