"""What the commands print: results to stdout, all else to stderr."""

import contextlib
import io
import sys
from queue import SimpleQueue
from threading import Condition, Thread
from typing import TextIO

MOMENT = 0.5
"""Seconds that a line on stderr waits for the text before it to come out on stdout."""


class Writer:
    """Writes on a thread of its own: a reader that stands still (a pager, Ctrl-S) must not hold up
    the event loop, or the stages would take this process for dead."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[TextIO, str]] = SimpleQueue()
        self._written = Condition()
        self._left = 0  # pieces not yet written
        self._error: OSError | None = None
        self._thread: Thread | None = None

    def put(self, stream: TextIO, text: str) -> None:
        """Write `text` soon. Raises what an earlier write raised, BrokenPipeError for instance."""
        if self._error is not None:
            raise self._error
        if self._thread is None:
            self._thread = Thread(target=self._work, name="output", daemon=True)
            self._thread.start()
        with self._written:
            self._left += 1
        self._queue.put((stream, text))

    def wait(self, seconds: float | None) -> bool:
        """Until all is written, at most so long (None: as long as the reader takes)."""
        with self._written:
            return self._written.wait_for(lambda: not self._left, seconds)

    def _work(self) -> None:
        while True:
            stream, text = self._queue.get()
            try:
                if self._error is None:
                    stream.write(text)
                    stream.flush()
            except (OSError, ValueError) as error:
                self._error = error if isinstance(error, OSError) else BrokenPipeError(str(error))
            with self._written:
                self._left -= 1
                self._written.notify_all()


_writer = Writer()
_line_open = False  # stdout stands in the middle of a line


def result(text: str) -> None:
    """Part of what the command was asked for."""
    global _line_open
    _line_open = not text.endswith("\n")
    if isinstance(sys.stdout, io.TextIOWrapper):
        _writer.put(sys.stdout, text)
    else:  # a stand-in, which does not block
        sys.stdout.write(text)


def note(text: str) -> None:
    """A line for the person at the terminal. A terminal that is gone is no reason to stop."""
    global _line_open
    _writer.wait(MOMENT)
    with contextlib.suppress(OSError, ValueError):
        if _line_open and sys.stdout.isatty() and sys.stderr.isatty():
            sys.stderr.write("\n")
        _line_open = False
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def ignore(text: str) -> None:
    """Where a line may go and nobody wants it."""


def finish() -> None:
    """Until the reader of stdout has taken all. Raises what writing raised."""
    _writer.wait(None)
    if _writer._error is not None:
        raise _writer._error
