"""A ring on this machine: starts the stages as processes of their own, and ends them.

The listening sockets are opened here and inherited by the stages, so no port is guessed and none
can be taken by somebody else meanwhile. Each stage is on a leash, its standard input: when this
process ends, however it ends, the leash closes and the stage ends too.
"""

import asyncio
import codecs
import contextlib
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from gardener.errors import UserError, reason
from gardener.net.address import Address, Inherited

GRACE = 5.0
"""Seconds a stage has to end by itself once its leash is dropped."""

LAST_WORDS = 1.0
"""Seconds to read what a stage printed before it ended."""

DEATHS, WITHIN = 3, 60.0
"""A stage that has died as often within so many seconds is not started again."""

FRESH = 5.0
"""Seconds for which the end of a process explains the loss of its stage."""

LINE = 4096
"""Longest line that is told whole; a longer one is cut in pieces."""


class LocalRing:
    """`stages` node processes on loopback, and a listening socket for the holder."""

    def __init__(
        self,
        stages: int,
        model: Path,
        options: Sequence[str],
        heard: Callable[[str], None],
    ) -> None:
        """`options` go to every node; `heard` is told each line that a node prints."""
        self._model = model
        self._options = options
        self._heard = heard
        self._sockets = [_listening() for _ in range(stages + 1)]
        ports = [sock.getsockname()[1] for sock in self._sockets]
        self._addresses = [Address("127.0.0.1", port) for port in ports]
        self.listen_at = Inherited(self._sockets[0].detach())
        self.peer = self._addresses[1]
        self.processes: list[asyncio.subprocess.Process] = []  # the newest of each stage
        self._deaths: list[deque[float]] = [deque(maxlen=DEATHS) for _ in range(stages)]
        self._fates: dict[int, tuple[str, float]] = {}  # what became of it last, and when
        self._lines: list[deque[str]] = [deque(maxlen=20) for _ in range(stages)]
        self._readers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all stages; returns before they are ready."""
        for stage in range(1, len(self._sockets)):
            process = await self._start(stage)
            self.processes.append(process)
            self._readers.append(asyncio.create_task(self._read(stage, process)))

    async def _start(self, stage: int) -> asyncio.subprocess.Process:
        """A process of this stage. Its listening socket stays open here, for the next one."""
        stages, sock = len(self._sockets) - 1, self._sockets[stage]
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gardener.cli.start"),
            *("--stage", str(stage), "--stages", str(stages), "--leash", "--no-view"),
            *("--peer", str(self._addresses[(stage + 1) % (stages + 1)])),
            *("--listen", f"fd:{sock.fileno()}", "--model", str(self._model)),
            *self._options,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[sock.fileno()],
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the holder, which then ends the stages
        )

    async def keep(self) -> str:
        """Start every stage again that ends. Returns, with a sentence, when one ends again and
        again."""
        while True:
            stage, process = await self._next_death()
            deaths, now = self._deaths[stage - 1], asyncio.get_running_loop().time()
            deaths.append(now)
            self._fates[stage] = (_fate(process), now)
            fate = await self._told(stage, process)
            if len(deaths) == DEATHS and now - deaths[0] < WITHIN:
                return f"{fate}; that was the {DEATHS}rd time within {WITHIN:.0f} s"
            self.processes[stage - 1] = process = await self._start(stage)
            self._readers[stage - 1] = asyncio.create_task(self._read(stage, process))

    async def died(self) -> str:
        """Wait until any stage ends, and say which and why."""
        return await self._told(*await self._next_death())

    async def _next_death(self) -> tuple[int, asyncio.subprocess.Process]:
        """Wait until any stage ends; which one."""
        waits = [asyncio.create_task(process.wait()) for process in self.processes]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return next((s, p) for s, p in enumerate(self.processes, 1) if p.returncode is not None)

    async def _told(self, stage: int, process: asyncio.subprocess.Process) -> str:
        """How it ended, with its last words."""
        await asyncio.wait([self._readers[stage - 1]], timeout=LAST_WORDS)
        last = self._lines[stage - 1][-1] if self._lines[stage - 1] else "it printed nothing"
        return f"stage {stage} {_fate(process)}: {last}"

    def advise(self, stage: int) -> str:
        """What became of the process of a lost stage, and what is done about it."""
        fate, when = self._fates.get(stage, ("", 0.0))
        if not fate or asyncio.get_running_loop().time() - when > FRESH:
            return "its process is still there: see what it printed (--verbose)"
        return f"its process {fate}; it is started again"

    async def stop(self) -> None:
        """End all stages, within `GRACE` and a moment: those that do not end are killed."""
        await asyncio.gather(*(_end(process) for process in self.processes))
        if self._readers:
            await asyncio.wait(self._readers, timeout=LAST_WORDS)
        for reader in self._readers:
            reader.cancel()
        for sock in self._sockets:
            sock.close()

    async def _read(self, stage: int, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        while data := await process.stderr.read(LINE):
            *lines, rest = (rest + decoder.decode(data)).split("\n")
            if len(rest) >= LINE:
                lines, rest = [*lines, rest], ""
            for line in lines:
                self._line(stage, line)
        if rest:
            self._line(stage, rest)

    def _line(self, stage: int, line: str) -> None:
        line = line.rstrip()
        if line:
            self._lines[stage - 1].append(line)
            self._heard(line)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Drop the leash; kill what does not let itself be ended."""
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        process.terminate()  # so that one which still imports does not have to finish that first
    try:
        async with asyncio.timeout(GRACE):
            await process.wait()
    except TimeoutError:
        process.kill()  # the kernel does this even to a process that is stopped
        await process.wait()


def _fate(process: asyncio.subprocess.Process) -> str:
    """`was killed by SIGKILL`, or how it ended otherwise."""
    status = process.returncode
    if status is None or status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # a real-time signal has no name
        name = f"signal {-status}"
    memory = " (the system does that when memory runs out)" if name == "SIGKILL" else ""
    return f"was killed by {name}{memory}"


def _environment() -> dict[str, str]:
    """Ours, without settings that are for the holder: a stage here gets its own as options."""
    kept = ("GARDENER_HOME",)
    return {k: v for k, v in os.environ.items() if not k.startswith("GARDENER_") or k in kept}


def _listening() -> socket.socket:
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        sock.listen()
    except OSError as error:
        sock.close()
        raise UserError(f"cannot listen on loopback: {reason(error)}") from error
    return sock
