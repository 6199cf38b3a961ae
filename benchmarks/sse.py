"""A client that asks the server as little as can be: what it adds itself is not the server's.

It opens a connection for each answer, and reads lines: those of the events, and between them the
sizes of chunks, which it skips.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

MODEL = "smollm2-135m"


@dataclass
class Heard:
    """An answer as a client had it. Times are in seconds of `time.perf_counter`.

    begun   when it was asked
    times   when each piece of text came
    pieces  the text
    """

    begun: float
    status: int = 0
    times: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    finish: str | None = None
    tokens: int = 0
    error: str = ""
    done: bool = False

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
    port: int, prompt: str, new_tokens: int, leave_after: int | None = None, **more: Any
) -> Heard:
    """Ask for a greedy answer, streamed. `leave_after`: pieces after which the client goes away."""
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
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    heard = Heard(time.perf_counter())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + data)
        heard.status = int((await reader.readline()).split()[1])
        while leave_after is None or len(heard.pieces) < leave_after:
            line = await reader.readline()
            if not line:
                break
            if line.startswith(b"data: "):
                _event(heard, line[6:].strip())
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
        heard.finish = choice["finish_reason"] or heard.finish
