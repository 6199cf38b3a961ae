"""Markdown as it streams: what is bold, what is code. The marks stay, so nothing that stands on the
screen ever changes."""

from collections.abc import Iterator
from typing import NamedTuple

FENCE = "```"


class Look(NamedTuple):
    """How a character is shown. `breaks`: its line may be broken between words."""

    bold: bool = False
    dim: bool = False
    breaks: bool = True


class Marks:
    """Reads a text character by character. Headings and `**strong**` words are bold, the lines of a
    code fence dim; code is left as it is, and its lines are not broken."""

    def __init__(self) -> None:
        self._held = ""  # marks whose meaning the next character tells
        self._before = "\n"  # the last character given out
        self._line_begins = True  # only blanks so far
        self._heading = self._strong = self._code = self._span = self._fence_line = False

    def push(self, text: str) -> Iterator[tuple[str, Look]]:
        """More text: its characters, and how they look."""
        for each in text:
            if self._held and each != self._held[0]:
                yield from self._resolve(each)
            if self._may_mark(each):
                self._held += each
            else:
                yield from self._give(each)

    def end(self) -> Iterator[tuple[str, Look]]:
        """What was held back."""
        yield from self._resolve("\n")

    def _may_mark(self, each: str) -> bool:
        if self._fence_line:
            return False
        if self._code:
            return each == "`" and self._line_begins
        return each in "`*" or (each == "#" and self._line_begins)

    def _resolve(self, following: str) -> Iterator[tuple[str, Look]]:
        """Give out the marks that were held, now that it is known what follows."""
        marks, self._held = self._held, ""
        if not marks:
            return
        if marks[0] == "`":
            self._ticks(marks)
            yield from self._give(marks)
        elif marks[0] == "#":
            self._heading = len(marks) <= 6 and following == " "
            yield from self._give(marks)
        else:
            yield from self._stars(marks, following)

    def _ticks(self, marks: str) -> None:
        if self._line_begins and len(marks) >= len(FENCE):
            self._code, self._fence_line = not self._code, True
        elif not self._code:
            self._span = not self._span

    def _stars(self, marks: str, following: str) -> Iterator[tuple[str, Look]]:
        if len(marks) != 2 or self._span or self._code:
            yield from self._give(marks)
        elif self._strong:
            yield from self._give(marks)
            self._strong = False
        else:
            self._strong = not (self._before.isalnum() or following.isspace())
            yield from self._give(marks)

    def _give(self, text: str) -> Iterator[tuple[str, Look]]:
        bold = (self._heading or self._strong) and not self._code
        plain = self._code or self._fence_line
        for each in text:
            yield each, Look(bold, self._fence_line, breaks=not plain)
            self._before = each
            if each == "\n":
                self._line_begins = True
                self._heading = self._strong = self._span = self._fence_line = False
            elif not each.isspace():
                self._line_begins = False
