"""Processes that have so many seconds, and do not outlive them.

A kernel that never ends holds its process up for ever, and a stage of a local ring is in a session
of its own: so all descendants are looked up while their parent still lives, and killed one by one.
"""

import json
import os
import queue
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any

import psutil

TREE = Path(__file__).parent.parent.parent
GRACE = 8.0
"""Seconds that a command has to end and to write what it has, once it was told to."""

_under_way: set["subprocess.Popen[str]"] = set()


class Lost(Exception):
    """A process hung or ended. Its text is a sentence for people."""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, in which this checkout's modules are found before all others."""
    path = os.pathsep.join(filter(None, (str(TREE), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, **(more or {})}


def end(pid: int) -> None:
    """Kill a process and all its descendants."""
    try:
        found = psutil.Process(pid)
        family = [*found.children(recursive=True), found]
    except psutil.NoSuchProcess:
        return
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(family, timeout=GRACE)


class Child:
    """A process that does as it is told: a JSON object a line, each answered with one. It is gone
    at the end of the `with` block."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        """`name`: for people."""
        self.name = name
        self._process = subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._errors: deque[str] = deque(maxlen=20)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            Thread(target=self._read, args=(self._process.stdout,), daemon=True),
            Thread(target=self._keep, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        end(self._process.pid)
        self._process.wait()
        for reader in self._readers:
            reader.join(GRACE)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def ask(self, what: str, patience: float, **how: Any) -> dict[str, Any]:
        """Its answer. Raises Lost if there is none within so many seconds of `patience`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({what: how}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=max(patience, 0.0))
        except BrokenPipeError:
            line = None
        except queue.Empty:
            raise Lost(f"{self.name} hung at {what}: no answer in {patience:.0f} s") from None
        if line is None:
            self._readers[1].join(1.0)
            raise Lost(f"{self.name} ended at {what}: {last(self._errors)}")
        return dict(json.loads(line))

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._answers.put(line)
        self._answers.put(None)

    def _keep(self, stream: IO[str]) -> None:
        self._errors.extend(stream)


def last(lines: Sequence[str]) -> str:
    """What a process said last."""
    found = [line.strip() for line in lines if line.strip()]
    return found[-1] if found else "it said nothing"


@dataclass(frozen=True)
class Ran:
    """What came of a command. status: None if it had to be ended. said: its last line to people;
    where it had to be ended, that too."""

    status: int | None
    out: str
    seconds: float
    said: str


def run(command: Sequence[str], seconds: float) -> Ran:
    """Run it for so many seconds at most: then it is asked to end, as with Ctrl-C, and killed where
    it does not."""
    begin = time.monotonic()
    process = subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us, who then end it
    )
    status: int | None = None
    _under_way.add(process)
    try:
        try:
            out, err = process.communicate(timeout=seconds)
            status = process.returncode
            said = last(err.splitlines())
        except subprocess.TimeoutExpired:
            out, err = _asked_to_end(process)
            said = f"it was not done after {seconds:.0f} s ({last(err.splitlines())})"
    finally:
        _under_way.discard(process)
        if process.poll() is None:  # one that is gone has a number that may be another's by now
            end(process.pid)
    return Ran(status, out, time.monotonic() - begin, said)


def stop() -> None:
    """End all commands that other threads are running."""
    for process in tuple(_under_way):
        if process.poll() is None:
            end(process.pid)


def _asked_to_end(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What it wrote until it ended, by itself or by force."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:
        end(process.pid)
    try:
        return process.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:  # somebody else has its pipes
        return "", "it did not end when it was told to, and was killed"
