"""Keys that are hit while a live view is on, read on the event loop.

prompt_toolkit's classes take Ctrl-C away from the terminal, where it must stay what it is, and take
longer to import than all the rest of the view; a dozen keys need less.
"""

import asyncio
import contextlib
import os
import re
import termios
from collections.abc import Callable

from gardener.cli import terminal

NAMES = {b"C": "right", b"D": "left", b"A": "up", b"B": "down"}

KEY = re.compile(rb"\x1b(?:\[[0-9;]*|O)([A-Za-z~])|\x1b|([^\x1b])", re.DOTALL)
"""An arrow or another key that is a sequence, or a byte."""


def keys(data: bytes) -> list[str]:
    """The keys in what a terminal sent: characters, or `left`, `right`, `up`, `down`. Those without
    a name, and what is not ASCII, are left out."""
    found = []
    for sequence, byte in KEY.findall(data):
        name = NAMES.get(sequence, "") if sequence else byte.decode("ascii", "ignore")
        if name:
            found.append(name)
    return found


class Keyboard:
    """Calls `hit` with every key, on the event loop, from `refresh` to `close`."""

    def __init__(self, hit: Callable[[str], None]) -> None:
        self._hit = hit
        self._number = terminal.reads_keys()
        self._reads = False

    @property
    def there(self) -> bool:
        """Whether keys are read."""
        return self._reads

    def refresh(self) -> None:
        """Read on if the process is in the foreground, and leave the terminal alone if it is not.
        To be called now and then."""
        if self._number is None:
            return
        if not terminal.in_foreground(self._number):
            self._stop()
            return
        try:
            terminal.give_keys_at_once(self._number)
            if not self._reads:
                asyncio.get_running_loop().add_reader(self._number, self._read, self._number)
                self._reads = True
        except (termios.error, OSError):  # it is gone, or no loop can wait for it
            self.close()

    def close(self) -> None:
        """Read no more, and leave the terminal as it was found. Twice is no error."""
        self._stop()
        self._number = None
        terminal.restore_keys()

    def _stop(self) -> None:
        if self._reads and self._number is not None:
            asyncio.get_running_loop().remove_reader(self._number)
        self._reads = False

    def _read(self, number: int) -> None:
        if not terminal.in_foreground(number):
            self._stop()
            return
        data = b""
        with contextlib.suppress(OSError):
            data = os.read(number, 4096)
        if not data:  # the terminal is gone
            self.close()
        for key in keys(data):
            self._hit(key)
