"""The processes of a ring: each node started by hand, on ports of its own, behind cables.

    holder -> cable -> stage 1 -> cable -> ... stage N -> cable -> holder

Lines that a process prints are kept with the time at which they were read. All times are seconds of
`time.monotonic`, which is one clock for all processes of a machine.
"""

import asyncio
import contextlib
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.faults.cable import Cable

NODE = ("-c", "from gardener.cli.start import node; node()", "--leash", "--no-view")
"""A node that ends with this program, however that one ends."""

STARTS_WITHIN = 90.0
"""Seconds in which a node must listen."""

READY = r"keys and values may take "
"""The last that a node says before it serves; it may listen earlier, only to say that it loads."""

LONGEST_LINE = 2**20


@dataclass
class Program:
    """A process of ours, started again and again with the same command. `name` is for people."""

    name: str
    command: Sequence[str]
    begun: float = 0.0
    lines: list[tuple[float, str]] = field(default_factory=list)  # of the last process: stderr
    process: asyncio.subprocess.Process | None = None
    expected: bool = False  # to be dead now: it was killed on purpose
    _readers: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Start it; returns before it is ready."""
        self.lines, self.begun, self.expected = [], time.monotonic(), False
        self.process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=LONGEST_LINE,
        )
        self._readers = [
            asyncio.create_task(self._read(self.process.stderr, self._said)),
            asyncio.create_task(self._read(self.process.stdout, self.told)),
        ]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def signal(self, number: int) -> None:
        """SIGSTOP, SIGCONT or whatever. One that has ended already gets none."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def kill(self) -> None:
        """As the kernel does when memory runs out: at once, with no last word."""
        self.expected = True
        self.signal(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()
        await asyncio.gather(*self._readers)

    def told(self, line: str) -> None:
        """A line on standard output."""

    def said(self, pattern: str) -> float | None:
        """When the present process first printed a line that has this in it; None: not yet."""
        return next((at for at, line in self.lines if re.search(pattern, line)), None)

    async def until(self, pattern: str, seconds: float = STARTS_WITHIN) -> float:
        """Wait for such a line; returns its time. Raises SystemExit with what it printed."""
        deadline = time.monotonic() + seconds
        while (at := self.said(pattern)) is None:
            if not self.alive or time.monotonic() > deadline:
                raise SystemExit(f"error: never came: {pattern!r}\n{self.state(30)}")
            await asyncio.sleep(0.01)
        return at

    def state(self, lines: int = 12) -> str:
        """Whether it lives, and what it printed last, with seconds of one clock for all."""
        if self.process is None:
            return f"{self.name}: not started"
        fate = "alive" if self.alive else f"ended with status {self.process.returncode}"
        said = [f"    {at % 1000:7.2f} s  {line}" for at, line in self.lines[-lines:]]
        return "\n".join((f"{self.name} (pid {self.pid}): {fate}, said", *said))

    def _said(self, line: str) -> None:
        self.lines.append((time.monotonic(), line))

    async def _read(self, stream: asyncio.StreamReader | None, tell: Callable[[str], None]) -> None:
        assert stream is not None
        async for line in stream:
            tell(line.decode(errors="replace").rstrip())


class Nodes:
    """The nodes of a ring of so many stages, and the cables between them. `cables[k]` leads from
    stage k to the one after it; the holder is stage 0."""

    def __init__(self, stages: int, options: Sequence[str] = ()) -> None:
        """`options` go to every node."""
        self.stages = stages
        ports = free_ports(2 * (stages + 1))
        self.ports, behind = ports[: stages + 1], ports[stages + 1 :]
        places = [*range(1, stages + 1), 0]
        self.cables = [
            Cable(port, self.ports[there]) for port, there in zip(behind, places, strict=True)
        ]
        self.nodes = {
            stage: Program(f"stage {stage}", self._command(stage, options))
            for stage in range(1, stages + 1)
        }

    def _command(self, stage: int, options: Sequence[str]) -> tuple[str, ...]:
        return (
            *(sys.executable, *NODE),
            *("--stage", str(stage), "--stages", str(self.stages), "--threads", "1"),
            *("--listen", at(self.ports[stage]), "--peer", at(self.cables[stage].port)),
            *options,
        )

    @property
    def peer(self) -> str:
        """Where the holder dials stage 1."""
        return at(self.cables[0].port)

    @property
    def listen(self) -> str:
        """Where the holder listens."""
        return at(self.ports[0])

    async def start(self) -> None:
        """Start all, and wait until all listen."""
        for cable in self.cables:
            await cable.start()
        for node in self.nodes.values():
            await node.start()
        for node in self.nodes.values():
            await node.until(READY)

    async def close(self) -> None:
        """Nothing is left behind."""
        for node in self.nodes.values():
            await node.kill()
        for cable in self.cables:
            await cable.close()

    def ended(self) -> list[str]:
        """Nodes that have ended though nobody killed them."""
        return [node.state() for node in self.nodes.values() if not (node.alive or node.expected)]

    async def mend(self) -> None:
        """Start again whatever has ended."""
        for node in self.nodes.values():
            if not node.alive:
                await node.start()
        for node in self.nodes.values():
            await node.until(READY)


def at(port: int) -> str:
    return f"127.0.0.1:{port}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]
