"""A chat in a terminal of its own: a pty that is typed into and read."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from types import TracebackType
from typing import Self

DEADLINE = 90.0
"""Seconds that anything may take here."""

CONTROLS = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Za-z0-9]|\x1b[=>78]|\x1b\][^\x07]*\x07"
)
"""Escape sequences."""


WHERE = b"\x1b[6n"
"""Asks the terminal where the cursor is; no toolbar without an answer."""


class ChatTerminal:
    """Runs `gardener chat` with these options in it. `said`: all that it wrote."""

    def __init__(
        self, *options: str, columns: int = 80, rows: int = 24, env: dict[str, str] | None = None
    ) -> None:
        program = "from gardener.cli.start import gardener; gardener()"
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm-256color", **(env or {})})
            os.environ.pop("NO_COLOR", None)
            os.environ.update(env or {})
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execv(sys.executable, [sys.executable, "-c", program, "chat", *options])
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.said = ""
        self._bytes = b""
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._status is None:
            os.killpg(self.pid, signal.SIGTERM)
            self.status()
        os.close(self._end)

    @property
    def text(self) -> str:
        """What it wrote, without escape sequences."""
        return CONTROLS.sub("", self.said).replace("\r", "")

    def figures(self, pattern: str) -> list[int]:
        """The numbers in the last line that is like this."""
        found = re.findall(pattern, self.text)
        assert found, self.text
        return [int(each) for each in found[-1]]

    def type(self, keys: str) -> None:
        """Hit keys."""
        os.write(self._end, keys.encode())

    def until(self, pattern: str, after: int = 0, seconds: float = DEADLINE) -> int:
        """Wait until this stands in `text` behind `after`; returns where it ends."""
        deadline = time.monotonic() + seconds
        while True:
            if found := re.compile(pattern).search(self.text, after):
                return found.end()
            if not self.read(deadline - time.monotonic()):
                raise AssertionError(f"{pattern!r} never came:\n{self.text[after:]}")

    def read(self, seconds: float) -> bool:
        """Read what comes; False: nothing came for so long, or there is no more."""
        if seconds <= 0 or not select.select([self._end], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._end, 65536)
        except OSError:  # the program has ended
            return False
        for _ in range(data.count(WHERE)):
            os.write(self._end, b"\x1b[1;1R")  # it need not be true: moves are relative
        self._bytes += data
        self.said = self._bytes.decode(errors="replace")
        return bool(data)

    def status(self) -> int:
        """Wait for the end; returns the exit status."""
        if self._status is None:
            while self.read(DEADLINE):
                pass
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status
