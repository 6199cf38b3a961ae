"""Commands as real processes: start them, read along, break them, and be sure that they end."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Condition, Thread
from typing import IO, TYPE_CHECKING, Any, Self

import psutil

if TYPE_CHECKING:
    from gardener.rings.settings import RingSettings

DEADLINE = 90.0
"""Seconds that anything may take here: far more than it does, on a machine that is busy."""

PYTHON = sys.executable
"""The Python that has Gardener; `outside/conftest.py` says which where it is not this one."""


class Process:
    """A command under way. Used as a context, it and its children are gone at the end."""

    def __init__(self, *command: str, entry: str = "gardener", before: str = "") -> None:
        """`before`: Python that runs in it first."""
        program = f"{before}\nfrom gardener.cli.start import {entry}; {entry}()"
        self.children: list[psutil.Process] = []
        self._said = {"stdout": "", "stderr": ""}
        self._changed = Condition()
        self._popen = subprocess.Popen(
            [PYTHON, "-c", program, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "GARDENER_NO_VIEW": "1"},
            start_new_session=True,
        )
        self._readers = [self._follow("stdout", self._popen.stdout)]
        self._readers.append(self._follow("stderr", self._popen.stderr))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in (*self.family(), *self.children):
            with_no_more_ado(process.kill)
        self._popen.wait(DEADLINE)
        for reader in self._readers:
            reader.join(DEADLINE)
        for stream in (self._popen.stdout, self._popen.stderr):
            assert stream is not None
            stream.close()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def out(self) -> str:
        return self._said["stdout"]

    @property
    def err(self) -> str:
        return self._said["stderr"]

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def family(self) -> list[psutil.Process]:
        """Processes that this one started, and theirs, and itself."""
        try:
            me = psutil.Process(self.pid)
            return [*me.children(recursive=True), me]
        except psutil.NoSuchProcess:
            return []

    def stages(self) -> dict[int, psutil.Process]:
        """The stages of a local ring, as processes."""
        found = {}
        for process in self.family():
            line = process.cmdline()
            if "--stage" in line:
                found[int(line[line.index("--stage") + 1])] = process
        self.children = list(found.values())
        return found

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def until(self, ready: Callable[[], object], seconds: float = DEADLINE) -> float:
        """Wait until `ready`, which is asked whenever something was printed; returns the seconds
        that it took. Fails with what was printed."""
        began = time.monotonic()
        with self._changed:
            while not ready():
                left = began + seconds - time.monotonic()
                if left <= 0 or (not self.alive and not any(r.is_alive() for r in self._readers)):
                    raise AssertionError(f"never came\nstdout: {self.out}\nstderr: {self.err}")
                self._changed.wait(min(left, 0.1))
        return time.monotonic() - began

    def heard(self, pattern: str, seconds: float = DEADLINE) -> float:
        """Wait until stderr has this; returns the seconds that it took."""
        return self.until(lambda: re.search(pattern, self.err), seconds)

    def words(self, count: int) -> None:
        """Wait until stdout has this many words: the stream is under way."""
        self.until(lambda: len(self.out.split()) >= count)

    def status(self) -> int:
        """Wait for the end; returns the exit status."""
        try:
            status = self._popen.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"never ended\nstdout: {self.out}\nstderr: {self.err}") from None
        for reader in self._readers:
            reader.join(DEADLINE)
        return status

    def _follow(self, name: str, stream: IO[bytes] | None) -> Thread:
        assert stream is not None
        thread = Thread(target=self._read, args=(name, stream), daemon=True)
        thread.start()
        return thread

    def _read(self, name: str, stream: IO[bytes]) -> None:
        read = b""
        while data := os.read(stream.fileno(), 65536):
            read += data
            with self._changed:
                self._said[name] = read.decode(errors="replace")
                self._changed.notify_all()


class HandMade:
    """A ring of `gardener-node`s, each started by hand, and the holder's place in it."""

    def __init__(self, stages: int = 3) -> None:
        self.ports = free_ports(stages + 1)  # the holder's first
        self.nodes: dict[int, Process] = {}
        self._stack = ExitStack()

    def start(self, stage: int, *options: str, before: str = "") -> Process:
        stages = len(self.ports) - 1
        node = Process(
            *("--stage", str(stage), "--stages", str(stages), "--threads", "1"),
            *("--listen", at(self.ports[stage])),
            *("--peer", at(self.ports[(stage + 1) % (stages + 1)])),
            *options,
            entry="node",
            before=before,
        )
        self.nodes[stage] = self._stack.enter_context(node)
        return node

    def generate(self, prompt: str, *options: str) -> Process:
        holder = ("--peer", at(self.ports[1]), "--listen", at(self.ports[0]))
        return Process("generate", prompt, *holder, *options)

    def settings(self, **more: Any) -> "RingSettings":
        """How a program comes by this ring."""
        from gardener.rings.settings import RingSettings

        return RingSettings(peer=at(self.ports[1]), listen=at(self.ports[0]), **more)

    def close(self) -> None:
        self._stack.close()


@contextmanager
def hand_made(stages: int = 3) -> Iterator[HandMade]:
    """A ring whose nodes are ended at the end."""
    ring = HandMade(stages)
    try:
        yield ring
    finally:
        ring.close()


def at(port: int) -> str:
    return f"127.0.0.1:{port}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them have ended, or end within moments."""
    return not psutil.wait_procs(processes, timeout=DEADLINE)[1]


def with_no_more_ado(action: Callable[[], object]) -> None:
    """Do it; a process that is gone already is fine."""
    try:
        action()
    except (psutil.NoSuchProcess, ProcessLookupError):
        return


def pause(process: Process | psutil.Process) -> None:
    os.kill(process.pid, signal.SIGSTOP)


def go_on(process: Process | psutil.Process) -> None:
    os.kill(process.pid, signal.SIGCONT)


def model_folder() -> Path:
    """Where the default model is, fetched if need be."""
    from gardener.model.checkpoint.resolve import resolve

    return resolve("smollm2-135m", None, say=lambda line: None)
