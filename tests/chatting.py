"""A chat in a terminal of its own: typed into and read."""

import os
import re
import time

from processes import DEADLINE
from terminals import Pty

CONTROLS = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Za-z0-9]|\x1b[=>78]|\x1b\][^\x07]*\x07"
)
"""Escape sequences."""

WHERE = b"\x1b[6n"
"""Asks the terminal where the cursor is; there is no line at the bottom without an answer."""


class ChatPty(Pty):
    """`gardener chat` in a terminal."""

    def __init__(self, *options: str) -> None:
        self._answered = 0
        super().__init__("chat", *options)

    @property
    def text(self) -> str:
        """All that was drawn, without escape sequences."""
        return CONTROLS.sub("", self.drawn).replace("\r", "")

    def shows(self, pattern: str, since: int = 0) -> int:
        """Wait until this stands in `text`, not before `since`; returns where it ends."""
        deadline = time.monotonic() + DEADLINE
        while not (found := re.compile(pattern).search(self.text, since)):
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {pattern!r} in {self.text[since:]}")
        return found.end()

    def figures(self, pattern: str) -> list[int]:
        """The numbers in the last line that is like this."""
        found = re.findall(pattern, self.text)
        assert found, self.text
        return [int(each) for each in found[-1]]

    def _read(self, seconds: float) -> bool:
        more = super()._read(seconds)
        asked = self._bytes.count(WHERE)
        for _ in range(asked - self._answered):
            os.write(self.end, b"\x1b[1;1R")  # it need not be true: moves are relative
        self._answered = asked
        return more
