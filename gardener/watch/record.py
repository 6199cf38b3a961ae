"""Writes down what is seen of a ring: one JSON line a status, after a line about the recording.

A line has what changed since the one before, and of the text what came after the part that stayed;
every `WHOLE_EVERY`th line has everything, so that one can go to any moment. A file whose name ends
with `.gz` is packed.
"""

import errno
import gzip
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import BinaryIO, cast

import msgspec

import gardener
from gardener.errors import UserError, reason
from gardener.watch.status import ColouredText, HolderStatus

FORMAT = 1
"""Of the file. A reader knows one format."""

WHOLE_EVERY = 50
"""Lines from one that has everything to the next."""

MOST = 1 << 30
"""Bytes of a recording, before it is packed: about a day. It ends there."""

MOST_LINE = 1 << 20
"""Bytes of a line. A status that takes more is left out."""

PUT_OUT_EVERY = 5
"""Lines after which a packed file can be read up to there, whatever happens to the process."""

WAITING = 300
"""Statuses that wait for a slow disk, at most: those of a minute. More are left out."""

CLOSING = 5.0
"""Seconds that a disk has to take what is still to be written at the end."""


class Header(msgspec.Struct):
    """The first line. `size` is that of the terminal, columns and lines, if there was one."""

    gardener_recording: int
    version: str
    model: str
    started: str
    size: tuple[int, int] | None = None


def header(model: str, size: tuple[int, int] | None) -> Header:
    """Of a recording that begins now."""
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    return Header(FORMAT, gardener.__version__, model, started, size)


class Recorder:
    """Records statuses, on a thread of its own: a disk that is slow holds nobody up.

    `say` is told, by whoever adds or closes, if it cannot go on, and if some are left out; of each
    once.
    """

    def __init__(self, path: Path, header: Header, say: Callable[[str], None]) -> None:
        """Raises UserError if the file cannot be written, or is there already."""
        self._path, self._say = path, say
        self._fault, self._told, self._dropped = "", False, False
        self._queue: SimpleQueue[tuple[float, HolderStatus] | None] = SimpleQueue()
        self._encoder = Encoder()
        first = msgspec.json.encode(header) + b"\n"
        self._left = MOST - len(first)
        self._open = ExitStack()
        try:
            _spare(path)
            self._file = _begun(path, first, self._open)
        except OSError as error:
            why = "nobody reads it" if error.errno == errno.ENXIO else reason(error)
            raise UserError(
                f"the recording {path} cannot be written ({why}): name another file"
            ) from error
        self._began: float | None = None
        self._thread = Thread(target=self._work, name="recording", daemon=True)
        self._thread.start()

    def add(self, now: float, status: HolderStatus) -> None:
        """Record what is seen at `now`, in seconds of any clock."""
        if self._began is None:
            self._began = now
        self._tell()
        if self._fault:
            return
        if self._queue.qsize() < WAITING:
            self._queue.put((now - self._began, status))
        elif not self._dropped:
            self._dropped = True
            self._say(f"the disk is slow: the recording {self._path} leaves some out")

    def close(self) -> None:
        """Write what is left. May take `CLOSING` seconds; twice is no error."""
        self._queue.put(None)
        self._thread.join(CLOSING)
        if self._thread.is_alive():
            self._fault = self._fault or "the disk does not take it"
        self._tell()

    def _tell(self) -> None:
        if self._fault and not self._told:
            self._told = True
            self._say(f"the recording {self._path} ends early: {self._fault}")

    def _work(self) -> None:
        try:
            with self._open:
                written = 0
                while (item := self._queue.get()) is not None:
                    line = self._encoder.line(*item)
                    self._left -= len(line)
                    if self._left < 0:
                        raise ValueError(f"it would have more than {MOST} bytes")
                    if line:
                        _write(self._file, line)
                        written += 1
                        if written % PUT_OUT_EVERY == 0:
                            self._file.flush()
        except (OSError, ValueError) as error:
            self._fault = reason(error) if isinstance(error, OSError) else str(error)


def _spare(path: Path) -> None:
    """Raises UserError if there is such a file, with something in it: nobody asked to lose it."""
    if path.is_file() and path.stat().st_size:
        raise UserError(f"{path} is there already: remove it, or name another file to record to")


def _begun(path: Path, line: bytes, stack: ExitStack) -> BinaryIO:
    """The file, with this line in it; `stack` closes it. What is flushed is there. Raises OSError,
    also for a pipe that nobody reads, where to open it would wait."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o666)
    os.set_blocking(number, True)
    packed = path.suffix == ".gz"
    with ExitStack() as begun:
        file: BinaryIO = begun.enter_context(open(number, "wb", buffering=-1 if packed else 0))
        if packed:
            file = cast(BinaryIO, begun.enter_context(gzip.GzipFile("", "wb", 6, file)))
        _write(file, line)
        file.flush()
        stack.push(begun.pop_all())
    return file


def _write(file: BinaryIO, line: bytes) -> None:
    """Write all of it: a file without a buffer may take a part only."""
    view = memoryview(line)
    while view:
        view = view[file.write(view) :]


class Encoder:
    """Turns statuses into lines."""

    def __init__(self) -> None:
        self._before = HolderStatus()
        self._count = 0

    def line(self, at: float, status: HolderStatus) -> bytes:
        """The line about `status`, or nothing if it would be too long."""
        whole = self._count % WHOLE_EVERY == 0
        before = HolderStatus() if whole else self._before
        changed = {
            name: value
            for name in HolderStatus.__struct_fields__
            if name != "text" and (value := getattr(status, name)) != getattr(before, name)
        }
        kept, added = _grown(before.text, status.text)
        entry: dict[str, object] = {"at": round(at, 3)}
        entry |= {"whole": True} if whole else {}
        entry |= {"changed": changed} if changed else {}
        if kept != sum(len(each.text) for each in before.text) or added:
            entry |= {"kept": kept, "added": added}
        line = msgspec.json.encode(entry) + b"\n"
        if len(line) > MOST_LINE:
            return b""
        self._before = status
        self._count += 1
        return line


def _grown(
    before: Sequence[ColouredText], after: Sequence[ColouredText]
) -> tuple[int, list[ColouredText]]:
    """How many characters of `before` `after` begins with, as far as pieces tell, and what follows
    on them."""
    kept = 0
    for number, piece in enumerate(after):
        if number >= len(before) or piece.guessed != before[number].guessed:
            return kept, list(after[number:])
        if piece != before[number]:
            old = len(before[number].text)
            if not piece.text.startswith(before[number].text):
                return kept, list(after[number:])
            rest = ColouredText(piece.text[old:], piece.guessed)
            return kept + old, [rest, *after[number + 1 :]]
        kept += len(piece.text)
    return kept, []
