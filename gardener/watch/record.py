"""Writes down what is seen of a ring: one JSON line a status, after a line about the recording.

A line has what changed since the one before, and of the text what came after the part that stayed;
every `WHOLE_EVERY`th line has everything, so that one can go to any moment. A file whose name ends
with `.gz` is packed.
"""

import gzip
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
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

MOST_LINE = 1 << 20
"""Bytes of a line. A status that takes more is left out."""

PUT_OUT_EVERY = 5
"""Lines after which a packed file can be read up to there, whatever happens to the process."""

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

    `say` is told once, by whoever adds or closes, if it cannot go on.
    """

    def __init__(self, path: Path, header: Header, say: Callable[[str], None]) -> None:
        """Raises UserError if the file cannot be written, or is another one than a recording."""
        self._path, self._say = path, say
        self._fault, self._told = "", False
        self._queue: SimpleQueue[tuple[float, HolderStatus] | None] = SimpleQueue()
        self._encoder = Encoder()
        try:
            _spare_others(path)
            self._file = _begun(path, msgspec.json.encode(header) + b"\n")
        except OSError as error:
            raise UserError(
                f"the recording {path} cannot be written ({reason(error)}): name another file"
            ) from error
        self._began: float | None = None
        self._thread = Thread(target=self._work, name="recording", daemon=True)
        self._thread.start()

    def add(self, now: float, status: HolderStatus) -> None:
        """Record what is seen at `now`, in seconds of any clock."""
        if self._began is None:
            self._began = now
        self._tell()
        if not self._fault:
            self._queue.put((now - self._began, status))

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
            with self._file as file:
                written = 0
                while (item := self._queue.get()) is not None:
                    line = self._encoder.line(*item)
                    if line:
                        _write(file, line)
                        written += 1
                        if written % PUT_OUT_EVERY == 0:
                            file.flush()
        except (OSError, ValueError) as error:
            self._fault = reason(error) if isinstance(error, OSError) else str(error)


def _spare_others(path: Path) -> None:
    """Raises UserError if there is a file that is no recording: its name may be a slip."""
    if not path.exists() or not stat.S_ISREG(path.stat().st_mode) or not path.stat().st_size:
        return
    with path.open("rb") as file:
        begin = file.read(2)
    packed = begin == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            first = cast(BinaryIO, file).readline(MOST_LINE)
        msgspec.json.decode(first, type=Header)
    except (OSError, EOFError, ValueError):
        raise UserError(
            f"{path} is there already and is no recording: name another file for it"
        ) from None


def _opened(path: Path) -> AbstractContextManager[object]:
    if path.suffix == ".gz":
        return gzip.open(path, "wb", compresslevel=6)
    return path.open("wb", buffering=0)


def _begun(path: Path, line: bytes) -> BinaryIO:
    """The file, with this line in it. Without a buffer of ours, so that what is written is there.
    Raises OSError."""
    with ExitStack() as stack:
        file = cast(BinaryIO, stack.enter_context(_opened(path)))
        _write(file, line)
        file.flush()
        stack.pop_all()
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
