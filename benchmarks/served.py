"""A server as a process of its own: start it, see what it holds, and end it."""

import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO
from urllib.error import HTTPError, URLError

import psutil

PATIENCE = 120.0
"""Seconds in which it must be ready, or have ended."""

GARDENER = ("-c", "from gardener.cli.start import gardener; gardener()")


class Served:
    """`port` is known once it listens."""

    def __init__(self, command: Sequence[str]) -> None:
        self._said = ""
        self._popen = subprocess.Popen(
            [sys.executable, *command], stderr=subprocess.PIPE, start_new_session=True
        )
        assert self._popen.stderr is not None
        threading.Thread(target=self._read, args=(self._popen.stderr,), daemon=True).start()
        self.port = 0

    def wait(self) -> None:
        """Until it can be asked. Ends this program if that does not come."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self._popen.poll() is None:
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", self._said):
                self.port = int(found[1])
                if self.get("/ready"):
                    return
            time.sleep(0.1)
        raise SystemExit(f"error: the server is not ready: {self._said}")

    def get(self, path: str) -> str:
        """What stands there; empty if nothing does."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as response:
                return str(response.read().decode())
        except (HTTPError, URLError):
            return ""

    @property
    def fault(self) -> str:
        """What went wrong inside, as it printed it; empty: nothing did."""
        return self._said[self._said.index("Traceback") :] if "Traceback" in self._said else ""

    def processes(self) -> list[psutil.Process]:
        """Itself first, then its stages."""
        me = psutil.Process(self._popen.pid)
        return [me, *me.children(recursive=True)]

    def close(self) -> None:
        """End it, with its stages."""
        self._popen.send_signal(signal.SIGINT)
        try:
            self._popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._said += line.decode(errors="replace")


@contextmanager
def served(*command: str) -> Iterator[Served]:
    """A server that is ready, for instance `served(*GARDENER, "serve", "--local", "2")`."""
    server = Served(command)
    try:
        server.wait()
        yield server
    finally:
        server.close()
