"""Holders as processes, asked in the two ways there are: by the Python API, and by HTTP."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.faults.nodes import Program
from benchmarks.sse import Heard, chat

OPENS_WITHIN = 90.0
"""Seconds in which a holder must have its ring."""

ASKER = (sys.executable, "-m", "benchmarks.faults.asker")
SERVE = "from gardener.cli.start import gardener; gardener()"
SERVER = (sys.executable, "-c", SERVE, "serve", "--no-view", "--port", "0")


@dataclass(frozen=True)
class Question:
    """`seed` is for a temperature above 0; `policy` None is the default one."""

    prompt: str
    tokens: int
    temperature: float = 0.0
    seed: int = 1
    policy: str | None = None


@dataclass
class Answer:
    """What has come of a question so far.

    asked, times  when it was, and when each piece came: seconds of `time.monotonic`
    tokens        None where the way of asking shows only text
    comments      what the stream said meanwhile
    """

    asked: float
    text: str = ""
    tokens: list[int] | None = None
    times: list[float] = field(default_factory=list)
    finish: str | None = None
    error: str = ""
    comments: list[str] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def came(self, text: str, at: float | None = None) -> None:
        """A piece did, now or then."""
        self.text += text
        self.times.append(time.monotonic() if at is None else at)
        self._changed.set()

    @property
    def count(self) -> int:
        """Of tokens, or else of pieces."""
        return len(self.times) if self.tokens is None else len(self.tokens)

    async def reaches(self, count: int) -> None:
        """Wait for so many tokens, or for the end."""
        while self.finish is None and self.count < count:
            self._changed.clear()
            await self._changed.wait()

    async def ends(self) -> None:
        """Wait for the end."""
        while self.finish is None:
            self._changed.clear()
            await self._changed.wait()

    def end(self, finish: str | None, error: str = "") -> None:
        """There is no more."""
        self.finish, self.error = finish or "none", error
        self._changed.set()

    def wrong(self, right: "Answer") -> str:
        """How it differs from the right one; empty: it does not."""
        if self.error:
            return f"it ended with an error after {self.count} tokens: {self.error}"
        if self.tokens is not None and self.tokens != right.tokens:
            pairs = zip(self.tokens, right.tokens or (), strict=False)
            place = next((n for n, (a, b) in enumerate(pairs) if a != b), len(self.tokens))
            return f"ANOTHER TEXT from token {place} on ({len(self.tokens)} tokens)"
        if self.text != right.text:
            return f"ANOTHER TEXT: {self.text!r}, not {right.text!r}"
        if self.finish != "length":
            return f"its finish reason is {self.finish}"
        return ""


class Holder(Protocol):
    """What faults and questions need of a holder."""

    @property
    def program(self) -> Program:
        """Its process."""

    async def open(self) -> None:
        """Start it, and wait for its ring. Raises SystemExit."""

    def ask(self, question: Question) -> Answer:
        """Begin an answer, which fills itself."""


class ApiHolder:
    """By the Python API, with tokens. `closed`: seconds until its ring was."""

    how = "API"

    def __init__(
        self,
        peer: str,
        listen: str,
        keep: bool,
        before: Sequence[str] = (),
        security: Sequence[str] = (),
    ) -> None:
        """`peer` and `listen` as `RingSettings` has them, `keep`: prefixes. `before`: what goes
        before the command; `security`: options of it."""
        command = [*before, *ASKER, "--peer", peer, "--listen", listen]
        command += [*(["--keep-prefixes"] if keep else []), *security]
        self.program = Told("the holder", command, heard=self._heard)
        self.closed: float | None = None
        self._answers: list[Answer] = []
        self._imported, self._stands = asyncio.Event(), asyncio.Event()

    async def load(self) -> None:
        """Start the process; it opens no ring yet."""
        await self.program.start()
        await self._until(self._imported)

    async def open(self) -> None:
        if not self._imported.is_set():
            await self.load()
        self._write({})
        await self._until(self._stands)

    def ask(self, question: Question) -> Answer:
        answer = Answer(time.monotonic(), tokens=[])
        self._answers.append(answer)
        self._write({"number": len(self._answers) - 1, **vars(question)})
        return answer

    def _write(self, line: dict[str, Any]) -> None:
        process = self.program.process
        assert process is not None
        assert process.stdin is not None
        process.stdin.write(json.dumps(line).encode() + b"\n")

    async def _until(self, event: asyncio.Event) -> None:
        waiting = asyncio.create_task(event.wait())
        deadline = time.monotonic() + OPENS_WITHIN
        while not waiting.done():
            if not self.program.alive or time.monotonic() > deadline:
                raise SystemExit(f"error: no ring\n{self.program.state(30)}")
            await asyncio.wait([waiting], timeout=0.1)

    def _heard(self, line: str) -> None:
        told = json.loads(line)
        if "imported" in told:
            self._imported.set()
        elif "closed" in told:
            self.closed = told["closed"]
        elif "stands" in told:
            self._stands.set()
        else:
            answer = self._answers[told["number"]]
            if "finish" in told:
                answer.end(told["finish"], told.get("error", ""))
                return
            assert answer.tokens is not None
            answer.tokens += told["tokens"]
            answer.came(told["text"], told["at"])


@dataclass
class Told(Program):
    """A program whose standard output is read."""

    heard: Any = None

    def told(self, line: str) -> None:
        self.heard(line)


class HttpHolder:
    """`gardener serve`, asked by streams of chat completions."""

    how = "HTTP"
    key = ""

    def __init__(self, peer: str, listen: str, security: Sequence[str] = ()) -> None:
        command = (*SERVER, "--peer", peer, "--listen", listen, *security)
        self.program = Program("the server", command)
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        await self.program.start()
        await self.program.until("listening on http://", OPENS_WITHIN)
        line = next(line for _, line in self.program.lines if "listening on http://" in line)
        self.port = int(line.rpartition(":")[2])
        await self.program.until("requests are taken", OPENS_WITHIN)

    def ask(self, question: Question) -> Answer:
        answer = Answer(time.monotonic())
        task = asyncio.create_task(self._follow(question, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return answer

    async def _follow(self, question: Question, answer: Answer) -> None:
        heard = Heard(time.perf_counter(), follow=answer.came)
        try:
            await chat(
                self,
                question.prompt,
                question.tokens,
                heard=heard,
                temperature=question.temperature,
                seed=question.seed,
                ignore_eos=True,
            )
        except (OSError, IndexError) as error:  # no status came
            heard.error = f"{type(error).__name__}: {error}"
        answer.comments = heard.comments
        if heard.done and not heard.error:
            answer.end(heard.finish)
        else:
            why = heard.error or "the stream broke off"
            answer.end("error", f"status {heard.status}: {why}")
