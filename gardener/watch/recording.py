"""Reads what `record` has written. The file may come from anybody."""

import gzip
import zlib
from bisect import bisect_right
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from gardener.errors import UserError, reason
from gardener.runtime.wording import printable
from gardener.watch.record import FORMAT, MOST, MOST_LINE, WHOLE_EVERY, Header
from gardener.watch.status import ColouredText, HolderStatus

MOST_TEXT = 1 << 20
"""Characters of the text at any moment."""

LARGEST = 1e15
"""No number is larger than this; pictures reckon with them."""

MOST_SIZE = 1000
"""Columns and lines of a terminal."""

_Changes = msgspec.defstruct(
    "_Changes",
    [
        (field.name, field.type | msgspec.UnsetType, msgspec.UNSET)
        for field in msgspec.structs.fields(HolderStatus)
        if field.name != "text"
    ],
)
"""The fields of a status that a line has."""


class _Line(msgspec.Struct):
    at: float
    whole: bool = False
    changed: _Changes | None = None  # type: ignore[valid-type]
    kept: int | None = None
    added: tuple[ColouredText, ...] = ()


_lines = msgspec.json.Decoder(_Line)


class Recording:
    """What was recorded. `status` at any of `times`, in seconds since it began.

    `note` says where it breaks off, if it does: the process that wrote it was killed.
    """

    def __init__(self, header: Header, lines: list[bytes], times: list[float], note: str) -> None:
        """See `read`."""
        self.header, self.times, self.note = header, times, note
        self._raw = lines
        self._shown = (-1, HolderStatus())

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.times[-1]

    def index(self, at: float) -> int:
        """Of the last status that was taken at `at` or before."""
        return max(bisect_right(self.times, at) - 1, 0)

    def status(self, index: int) -> HolderStatus:
        """One of them; quick from one to the next."""
        number, status = self._shown
        if not number <= index < number + WHOLE_EVERY:
            number = index
            while not _lines.decode(self._raw[number]).whole:  # the first one is
                number -= 1
            number -= 1
        for raw in self._raw[number + 1 : index + 1]:
            status = _next(status, _lines.decode(raw))
        self._shown = index, status
        return status


def read(path: Path) -> Recording:
    """The recording in a file, all of it checked. Raises UserError."""
    try:
        return _Reader(path).read()
    except OSError as error:
        raise UserError(f"the recording {path} cannot be read: {reason(error)}") from error


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._note = ""

    def read(self) -> Recording:
        with self._path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            file = cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if packed else plain
            header = self._header(self._line(file))
            lines = self._all(file)
        times: list[float] = []
        status = HolderStatus()
        for number, each in enumerate(lines, 2):
            status = self._checked(status, each, number, times)
        if not times:
            raise self._refused("nothing was recorded in it")
        return Recording(header, lines, times, self._note)

    def _refused(self, why: str) -> UserError:
        return UserError(f"{self._path} cannot be played: {why}")

    def _line(self, file: BinaryIO) -> bytes:
        """The next line; nothing at the end, and where the file breaks off."""
        try:
            line = file.readline(MOST_LINE + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            line = b"?"  # as much as is there was no line
        if len(line) > MOST_LINE:
            raise self._refused(f"a line has more than {MOST_LINE} bytes, which none of ours has")
        if line and not line.endswith(b"\n"):
            self._note = f"{self._path} breaks off: what was recorded before is played"
            return b""
        return line

    def _header(self, line: bytes) -> Header:
        try:
            header = msgspec.json.decode(line, type=Header)
        except (ValueError, RecursionError):
            raise self._refused(
                "it is no recording of gardener (--record writes one), or breaks off at once"
            ) from None
        if header.gardener_recording != FORMAT:
            raise self._refused(
                f"it has format {header.gardener_recording}, and this gardener reads {FORMAT}: use "
                f"gardener {printable(header.version)[:40]}"
            )
        if header.size is not None and not all(1 <= each <= MOST_SIZE for each in header.size):
            raise self._refused(f"a terminal has 1 to {MOST_SIZE} columns and lines")
        return header

    def _all(self, file: BinaryIO) -> list[bytes]:
        lines, size = [], 0
        while line := self._line(file):
            size += len(line)
            if size > MOST:
                self._note = f"{self._path} has more than {MOST} bytes: what comes first is played"
                break
            lines.append(line)
        return lines

    def _checked(
        self, status: HolderStatus, raw: bytes, number: int, times: list[float]
    ) -> HolderStatus:
        try:
            line = _lines.decode(raw)
            _tame(msgspec.to_builtins(line))
            if not times and not line.whole:
                raise ValueError("the first status is not whole")
            if line.at < (times[-1] if times else 0):
                raise ValueError("time goes backwards")
            status = _next(status, line)
        except (ValueError, RecursionError) as error:
            why = printable(str(error))[:200]
            raise self._refused(f"line {number} is no status ({why})") from None
        times.append(line.at)
        return status


def _next(before: HolderStatus, line: _Line) -> HolderStatus:
    """The status after `before`. Raises ValueError for a text that cannot be."""
    if line.whole:
        before = HolderStatus()
    changed: dict[str, Any] = {}
    if line.changed is not None:
        for name in _Changes.__struct_fields__:
            value = getattr(line.changed, name)
            if value is not msgspec.UNSET:
                changed[name] = value
    if line.kept is not None:
        changed["text"] = _text(before.text, line.kept, line.added)
    return msgspec.structs.replace(before, **changed)


def _text(
    before: tuple[ColouredText, ...], kept: int, added: tuple[ColouredText, ...]
) -> tuple[ColouredText, ...]:
    """The first `kept` characters of `before`, and what was added."""
    pieces: list[ColouredText] = []
    for piece in (*_first(before, kept), *added):
        text = piece.text
        if pieces and pieces[-1].guessed == piece.guessed:
            text = pieces.pop().text + text
        pieces.append(ColouredText(text, piece.guessed))
    if sum(len(each.text) for each in pieces) > MOST_TEXT:
        raise ValueError("the text is longer than any that was shown")
    return tuple(pieces)


def _first(pieces: tuple[ColouredText, ...], count: int) -> tuple[ColouredText, ...]:
    left, found = count, []
    for piece in pieces:
        if left <= 0:
            break
        found.append(ColouredText(piece.text[:left], piece.guessed))
        left -= len(piece.text)
    return tuple(found)


def _tame(value: Any) -> None:
    """Raise ValueError for a number that no picture can reckon with."""
    if isinstance(value, dict):
        for each in value.values():
            _tame(each)
    elif isinstance(value, list | tuple):
        for each in value:
            _tame(each)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST:
        raise ValueError("a number is too large")
