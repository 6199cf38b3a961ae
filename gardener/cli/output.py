"""What the commands print: results to stdout, all else to stderr."""

import asyncio
import contextlib
import io
import os
import sys
import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Condition, Thread
from typing import TextIO

from gardener.cli.streams import Unwritable

MOMENT = 0.5
"""Seconds that a line on stderr waits for the text before it to come out on stdout."""

ASKING = 0.005
"""Seconds between two questions whether all is written."""

MOST_LINES = 1000
"""Lines of a log that wait to be written, at most: of one that nobody reads, the rest is lost."""

PAUSE = 10.0
"""Seconds between two lines about progress where there is no terminal."""


class Writer:
    """Writes on a thread of its own: a reader that stands still (a pager, Ctrl-S) must not hold up
    the event loop, or the stages would take this process for dead."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[TextIO, str]] = SimpleQueue()
        self._written = Condition()
        self._left = 0  # pieces not yet written
        self._failed: tuple[TextIO, OSError] | None = None  # what cannot be written to, and why
        self._thread: Thread | None = None

    def put(self, stream: TextIO, text: str) -> None:
        """Write `text` soon. Raises what an earlier write to this stream raised, BrokenPipeError
        for instance."""
        self.check(stream)
        if self._thread is None:
            self._thread = Thread(target=self._work, name="output", daemon=True)
            self._thread.start()
        with self._written:
            self._left += 1
        self._queue.put((stream, text))

    def check(self, stream: TextIO) -> None:
        """Raise what a write to it raised."""
        if self._failed is not None and self._failed[0] is stream:
            raise self._failed[1]

    @property
    def left(self) -> int:
        """Pieces that are not yet written."""
        return self._left

    def wait(self, seconds: float | None) -> bool:
        """Wait until all is written, for at most `seconds` (None: as long as the reader takes);
        whether it is."""
        with self._written:
            return self._written.wait_for(lambda: not self._left, seconds)

    def _work(self) -> None:
        while True:
            stream, text = self._queue.get()
            if self._failed is None or self._failed[0] is not stream:
                error = _write(stream, text)
                self._failed = self._failed if error is None else (stream, error)
            with self._written:
                self._left -= 1
                self._written.notify_all()


def _write(stream: TextIO, text: str) -> OSError | None:
    """What went wrong, if something did."""
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        return error
    except UnicodeError as error:
        return Unwritable(
            f"standard output cannot be written in {stream.encoding} ({error}): set "
            "PYTHONIOENCODING=utf-8"
        )
    except ValueError as error:  # it was closed
        return BrokenPipeError(str(error))
    return None


_writer = Writer()
_logger = Writer()  # apart: what is wrong with a log is wrong with no result
_shape: Callable[[str], str] | None = None  # how a note becomes a line
_line_open = False  # stdout stands in the middle of a line


def result(text: str) -> None:
    """Part of what the command was asked for."""
    global _line_open
    _status.end()
    _line_open = not text.endswith("\n")
    if isinstance(sys.stdout, io.TextIOWrapper):
        _writer.put(sys.stdout, text)
    else:  # a stand-in, which does not block
        sys.stdout.write(text)


class _Status:
    """Progress of something: on a terminal one line that is renewed in its place, elsewhere a line
    every `PAUSE` seconds."""

    def __init__(self) -> None:
        self._shown = ""
        self._told: float | None = None  # monotonic seconds; None: nothing is under way

    def show(self, text: str) -> None:
        if sys.stderr.isatty() and _shape is None:
            # No escapes, which a dumb terminal would print; nothing where it does not keep up.
            if text != self._shown and _writer.wait(0.0):
                text = text[: _columns() - 1]
                _write_note(f"\r{text}{' ' * (len(self._shown) - len(text))}")
                self._shown = text
            return
        now = time.monotonic()
        if self._told is None:
            self._told = now
        elif now >= self._told + PAUSE:
            self._told = now
            note(text)

    def end(self) -> None:
        """Remove the line."""
        if self._shown:
            _write_note(f"\r{' ' * len(self._shown)}\r")
        self._shown, self._told = "", None


_status = _Status()


def progress(text: str) -> None:
    """Show the progress of something that takes long; an empty text when it is done. Whatever is
    printed next takes its place."""
    if text:
        _status.show(text)
    else:
        _status.end()


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _write_note(text: str) -> None:
    """A piece of a line, written as results are: a terminal that stands still holds nobody up."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        with contextlib.suppress(OSError):
            _writer.put(sys.stderr, text)
    else:
        sys.stderr.write(text)


def note(text: str) -> None:
    """A line for the person at the terminal. A terminal that is gone is no reason to stop."""
    global _line_open
    if _status._shown:
        _status.end()
    _writer.wait(MOMENT)
    _logger.wait(MOMENT)
    if _shape is not None:
        text = _shape(text)
    with contextlib.suppress(OSError, ValueError):
        if _line_open and sys.stdout.isatty() and sys.stderr.isatty():
            sys.stderr.write("\n")
        _line_open = False
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def shape(how: Callable[[str], str]) -> None:
    """Write notes from now on as `how` makes lines of them."""
    global _shape
    _shape = how


def log(line: str) -> None:
    """A line of a log. The event loop, which may be who writes it, waits for no reader."""
    if not isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.write(f"{line}\n")
    elif _logger.left < MOST_LINES:
        with contextlib.suppress(OSError):
            _logger.put(sys.stderr, f"{line}\n")


def ignore(text: str) -> None:
    """Drop a line."""


async def written() -> None:
    """Wait until the reader of stdout has taken all. A thread that waits for it would hold up the
    end of the event loop, so this asks."""
    while not _writer.wait(0.0):  # noqa: ASYNC110 - it is a thread that writes
        await asyncio.sleep(ASKING)


def finish() -> None:
    """Wait until the reader of stdout has taken all. Raises what writing raised."""
    _writer.wait(None)
    _writer.check(sys.stdout)
