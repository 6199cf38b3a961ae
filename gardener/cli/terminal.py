"""The terminal as it was found: what a live view changes of it is put back under every end.

Nothing heavy is imported here: the handlers of signals need it from the first moment on.
"""

import contextlib
import os
import sys
import termios
from collections.abc import Iterator
from typing import Any

_LOCAL, _SPECIAL = 3, 6  # places in what `termios.tcgetattr` returns

_found: dict[int, list[Any]] = {}
"""Attributes of a terminal before they were changed, by file descriptor."""

_shows: list[None] = []
"""One for each live view that is on the screen."""


@contextlib.contextmanager
def screen() -> Iterator[None]:
    """A live view is on meanwhile."""
    _shows.append(None)
    try:
        yield
    finally:
        _shows.pop()


def in_foreground(number: int) -> bool:
    """Whether this process may read the terminal: one in the background would be stopped."""
    try:
        return os.tcgetpgrp(number) == os.getpgrp()
    except OSError:  # it is not the terminal that controls this process
        return True


def give_keys_at_once(number: int) -> None:
    """Let the terminal pass every key on when it is hit, and not print it; Ctrl-C stays what it is.
    To be asked again after the process was stopped: shells change it then. Raises termios.error."""
    attributes = termios.tcgetattr(number)
    if not attributes[_LOCAL] & termios.ICANON:
        return
    _found.setdefault(number, [*attributes[:_SPECIAL], list(attributes[_SPECIAL])])
    attributes[_LOCAL] &= ~(termios.ICANON | termios.ECHO)
    attributes[_SPECIAL][termios.VMIN], attributes[_SPECIAL][termios.VTIME] = 1, 0
    termios.tcsetattr(number, termios.TCSANOW, attributes)  # waits for nothing that is unwritten


def restore_keys() -> None:
    """Undo `give_keys_at_once`. Twice is no error."""
    while _found:
        number, attributes = _found.popitem()
        with contextlib.suppress(termios.error, OSError):
            if in_foreground(number):  # else the shell has set it as it likes
                termios.tcsetattr(number, termios.TCSANOW, attributes)


def restore() -> None:
    """For a process that ends at once, whatever it is doing: the screen before a live view, with a
    cursor, and the keys."""
    restore_keys()
    if _shows:
        with contextlib.suppress(OSError):
            os.write(2, b"\x1b[?1049l\x1b[?25h")


def reads_keys() -> int | None:
    """The file descriptor of standard input, if that is a terminal."""
    try:
        number = sys.stdin.fileno()
        return number if os.isatty(number) else None
    except (OSError, ValueError, AttributeError):  # closed, or no stream of the system at all
        return None
