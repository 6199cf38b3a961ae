"""A terminal of our own, with a command in it: hit keys, look at what stands there, end it."""

import os
import pty
import re
import select
import signal
import sys
import termios
import time
from contextlib import suppress
from typing import Self

from processes import DEADLINE

SCREEN_ON, SCREEN_OFF, HOME = "\x1b[?1049h", "\x1b[?1049l", "\x1b[H"


class Pty:
    """`gardener` in a terminal. Used as a context, it is gone at the end."""

    def __init__(self, *options: str, columns: int = 80, lines: int = 24) -> None:
        self.drawn = ""
        self._bytes = b""
        self.number, self.end = pty.fork()
        if self.number == 0:
            # By hand: readline, if pytest imports it, sets LINES and COLUMNS behind our back.
            leave = ("GARDENER_NO_VIEW", "NO_COLOR", "COLUMNS", "LINES")
            environment = {k: v for k, v in os.environ.items() if k not in leave}
            environment |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
            for number in (signal.SIGHUP, signal.SIGQUIT):  # under nohup they are ignored
                signal.signal(number, signal.SIG_DFL)
            with suppress(OSError):
                termios.tcsetwinsize(0, (lines, columns))
            program = "from gardener.cli.start import gardener; gardener()"
            os.execve(sys.executable, [sys.executable, "-c", program, *options], environment)
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._status is None:
            os.kill(self.number, 9)
            os.waitpid(self.number, 0)
        os.close(self.end)

    def hit(self, keys: str) -> None:
        os.write(self.end, keys.encode())

    def signal(self, number: int) -> None:
        os.kill(self.number, number)

    def until(self, pattern: str, since: int = 0) -> int:
        """Wait until this was drawn, not before `since`; how much was drawn by then."""
        deadline = time.monotonic() + DEADLINE
        while not (found := re.search(pattern, self.drawn[since:], re.DOTALL)):
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {pattern!r} in {self.drawn[since:]!r}")
        return since + found.end()

    def status(self) -> int:
        """Wait for the end; the exit status."""
        deadline = time.monotonic() + DEADLINE
        while self._read(deadline - time.monotonic()):
            pass
        self._status = os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])
        return self._status

    def keys_as_found(self) -> bool:
        """Whether the terminal prints keys, and keeps a line until its end, as it did before."""
        local = termios.tcgetattr(self.end)[3]
        return bool(local & termios.ICANON and local & termios.ECHO)

    def frames(self) -> list[str]:
        """The pictures of the live view, without colours, as `gardener replay` prints them."""
        inside = self.drawn.partition(SCREEN_ON)[2].rpartition(SCREEN_OFF)[0]
        return [plain(each) for each in inside.split(HOME)[1:]]

    def _read(self, seconds: float) -> bool:
        """Read on, waiting at most so long; whether there may be more."""
        if not select.select([self.end], [], [], max(seconds, 0))[0]:
            raise AssertionError(f"never came: {self.drawn[-2000:]!r}")
        try:
            data = os.read(self.end, 65536)
        except OSError:  # how Linux says that the other end is closed
            data = b""
        self._bytes += data
        self.drawn = self._bytes.decode(errors="replace")
        return bool(data)


def plain(drawn: str) -> str:
    """The lines of a picture without colours, and without the spaces at their ends."""
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn).replace("\r", "").split("\n")
    return "".join(f"{line.rstrip()}\n" for line in lines)
