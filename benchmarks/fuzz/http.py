"""Mutated requests to a real server."""

import asyncio
import contextlib
import json
import random
import traceback
from dataclasses import dataclass, field
from typing import Protocol

import h11

from benchmarks.fuzz.requests import Sent, spoilt
from benchmarks.fuzz.tally import Tally

CLIENTS = 16
"""At a time."""

ANSWERED = 20.0
"""Seconds in which a sound request is answered."""

QUIET = 0.05
"""Seconds that one which is not sound is given for more of an answer."""

EXPECTED = frozenset((503, *range(200, 300), *range(400, 500)))


class Fault(Exception):
    """The server did what it must not."""


class Port(Protocol):
    """A server."""

    @property
    def port(self) -> int: ...


@dataclass
class Requests:
    """The fuzzer of one server. What a request is depends on the seed and its number alone."""

    server: Port
    seed: int
    tally: Tally = field(default_factory=Tally)
    right: str = ""
    sent: int = 0

    async def run(self, requests: int, first: int = 0) -> Tally:
        """So many, and an honest one at the beginning and the end."""
        numbers = iter(range(first, first + requests))

        async def client() -> None:
            for number in numbers:
                if self.tally.faults:
                    return
                await self._one(number)

        await self._honest()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        await self._honest()
        return self.tally

    async def _honest(self) -> None:
        """Ask what has always the same answer."""
        body = json.dumps({"model": "tiny", "prompt": "a b", "max_tokens": 8, "temperature": 0})
        head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        data = f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()
        try:
            ((status, answer),) = parsed(*await self._asked(Sent(data, "POST", True)), "POST")
            text = json.loads(answer)["choices"][0]["text"] if status == 200 else answer.decode()
        except Exception:
            text = traceback.format_exc()
        self.right = self.right or text
        if text != self.right:
            self.tally.fault(f"honestly asked, the server wrote {text!r}, not {self.right!r}")

    async def _one(self, number: int) -> None:
        self.sent += 1
        sent = spoilt(random.Random(f"{self.seed} request {number}"))
        try:
            found, ended = await self._asked(sent)
            answers = parsed(found, ended, sent.method)
            if sent.whole and not answers:
                raise Fault("a sound request got no answer")
            for status, answer in answers:
                self.tally.hear(f"{status} {_message(answer)}")
                if status not in EXPECTED:
                    raise Fault(f"status {status}: {answer[:500]!r}")
            if not answers:
                self.tally.hear("no answer")
        except Exception:
            self.tally.fault(f"request {number}: {sent.data!r}\n{traceback.format_exc()}")

    async def _asked(self, sent: Sent) -> tuple[bytes, bool]:
        """All that comes back, and whether the server closed the connection after it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        found, patience = b"", ANSWERED if sent.whole else QUIET
        try:
            writer.write(sent.data)
            while True:
                async with asyncio.timeout(patience):
                    data = await reader.read(2**16)
                if not data:
                    return found, True
                found += data
        except (TimeoutError, ConnectionError) as error:
            if sent.whole:
                raise Fault(f"{type(error).__name__} after {found!r}") from error
            return found, False
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def parsed(found: bytes, ended: bool, method: str) -> list[tuple[int, bytes]]:
    """Status and body of each answer that is complete. Raises h11.RemoteProtocolError for what is
    no HTTP, and Fault where the connection was closed in the middle of an answer."""
    answers: list[tuple[int, bytes]] = []
    while found:
        link = h11.Connection(h11.CLIENT)
        asked = method if method in ("HEAD", "CONNECT") else "GET"
        link.send(h11.Request(method=asked, target="/", headers=[("host", "x")]))
        link.send(h11.EndOfMessage())
        link.receive_data(found)
        status, body = 0, b""
        while not isinstance(event := link.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA and not ended:
                return answers
            if event is h11.NEED_DATA:
                link.receive_data(b"")
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.ConnectionClosed):
                raise Fault("closed in the middle of an answer")
        answers.append((status, body))
        if method == "HEAD":  # a request that could not be read may be answered with a body
            break
        found, method = link.trailing_data[0], "GET"
    return answers


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"]["message"])
    except (ValueError, TypeError, KeyError):
        return "an answer"
