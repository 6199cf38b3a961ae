"""The standard streams, wherever they lead: to a terminal, a pipe, a full disk, or nowhere.

Closed ones lead to the null device: a socket that took their number would end in the event loop,
which takes 0 to 2 for streams. What an encoding cannot express is written as an escape. Output that
cannot be written ends the command in one sentence; a line that nobody can read ends nothing.
"""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from gardener.errors import reason


class Unwritable(OSError):
    """Standard output cannot be written, for another reason than that its reader has left."""


class Results(io.TextIOWrapper):
    """Standard output."""

    def write(self, text: str) -> int:
        """Raises Unwritable; BrokenPipeError where the reader has left."""
        with _named():
            return super().write(text)

    def flush(self) -> None:
        """See `write`."""
        with _named():
            super().flush()


class Notes(io.TextIOWrapper):
    """Standard error. A terminal that is gone is no reason to stop."""

    def write(self, text: str) -> int:
        """Raises nothing."""
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Raises nothing."""
        with contextlib.suppress(OSError):
            super().flush()


def prepare() -> None:
    """Once, before anything is opened or written."""
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(null, True)
    os.close(null)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Where nobody set an encoding, texts are in the one that all others are in today.
        utf8 = codecs.lookup(sys.stdin.encoding).name == "ascii"
        sys.stdin.reconfigure(encoding="utf-8" if utf8 else None, errors="strict")
    sys.stdout = _stream(Results, 1, sys.stdout)
    sys.stderr = _stream(Notes, 2, sys.stderr)


def _stream(kind: type[io.TextIOWrapper], number: int, before: TextIO | None) -> io.TextIOWrapper:
    raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
    encoding = before.encoding if before is not None else "utf-8"
    if not _writes_escapes(encoding):
        encoding = "ascii"
    return kind(raw, encoding, "backslashreplace", line_buffering=os.isatty(number))


def _writes_escapes(encoding: str) -> bool:
    """Whether it takes any text, if need be with escapes; a few are for other things (`idna`)."""
    every = "".join(map(chr, range(0x20, 0x7F))) * 2
    try:
        return bool(f"{every}\n\N{SNOWMAN}".encode(encoding, "backslashreplace"))
    except (UnicodeError, LookupError):
        return False


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritable(
            f"standard output cannot be written ({reason(error)}): let it lead elsewhere"
        ) from error
