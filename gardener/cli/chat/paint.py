"""An answer on the terminal, as it comes: harmless, tinted, its lines broken between words."""

from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from rich.cells import cell_len

from gardener.cli.chat.marks import Look, Marks
from gardener.cli.chat.source import Part
from gardener.cli.view.text import clean

PLAIN = Look(breaks=False)
ERASE = "\x1b[K"
RESET = "\x1b[0m"


class Style(NamedTuple):
    """What the answer looks like. colour: escapes for bold, dim and tint may be written. tint:
    accepted guesses are green. marks: markdown is seen to, and lines are broken between words."""

    colour: bool = True
    tint: bool = True
    marks: bool = True


class Cell(NamedTuple):
    """A character as it is shown; `sgr` selects how."""

    text: str
    sgr: str
    breaks: bool

    @property
    def width(self) -> int:
        """In columns of the terminal."""
        return cell_len(self.text)


class Painter:
    """Writes one answer. A word that does not fit is taken back and begun on the next line: all
    else, once written, stays."""

    def __init__(
        self, write: Callable[[str], None], columns: Callable[[], int], style: Style
    ) -> None:
        """`columns`: of the terminal, which may change."""
        self._write, self._columns, self._style = write, columns, style
        self._marks = Marks() if style.marks else None
        self.begun = False  # something was written
        self._guessed: list[bool] = []  # of characters that the marks still hold
        self._column = 0  # in cells
        self._word: list[Cell] = []  # since the last blank, on this line
        self._begins = 0  # its column

    def push(self, part: Part) -> None:
        """More of the answer."""
        text = clean(part.text.replace("\r", "").replace("\t", "    "), keep="\n")
        self._guessed += [part.guessed] * len(text)
        looks = ((each, PLAIN) for each in text) if self._marks is None else self._marks.push(text)
        self._show([self._cell(each, look) for each, look in looks])

    def end(self) -> None:
        """The answer ends here: whatever was held back, and the end of the line."""
        if self._marks is not None:
            self._show([self._cell(each, look) for each, look in self._marks.end()])
        if self._column:
            self._write("\n")
        self._column, self._word = 0, []

    def _cell(self, text: str, look: Look) -> Cell:
        guessed = self._guessed.pop(0)
        codes = []
        if self._style.colour:
            codes = [code for code, on in (("1", look.bold), ("2", look.dim)) if on]
            codes += ["32"] if guessed and self._style.tint else []
        return Cell(text, ";".join(codes), look.breaks)

    def _show(self, cells: list[Cell]) -> None:
        out: list[Cell] = []
        limit = max(self._columns() - 1, 1)  # in the last column, terminals differ
        for cell in cells:
            self._place(cell, limit, out)
        if out:
            self.begun = True
            self._write(rendered(out))

    def _place(self, cell: Cell, limit: int, out: list[Cell]) -> None:
        """Add a character to what is written, and break the line before it if need be."""
        if cell.text == "\n":
            self._new_line(out)
            return
        full = cell.breaks and self._column + cell.width > limit
        if full and cell.text == " ":
            self._new_line(out)  # in place of the blank
            return
        if full and self._begins and self._word:
            self._move_word(out)
        out.append(cell)
        self._column += cell.width
        if cell.text == " ":
            self._word, self._begins = [], self._column
        else:
            self._word.append(cell)

    def _new_line(self, out: list[Cell]) -> None:
        out.append(Cell("\n", "", breaks=True))
        self._column, self._begins, self._word = 0, 0, []

    def _move_word(self, out: list[Cell]) -> None:
        """Begin the word that stands at the end of the line on the next one."""
        word, width = self._word, sum(cell.width for cell in self._word)
        unseen = min(len(word), len(out))  # not written yet, so nothing is to be taken back
        while unseen and out[-unseen:] != word[-unseen:]:
            unseen -= 1
        del out[len(out) - unseen :]
        back = sum(cell.width for cell in word[: len(word) - unseen])
        if back:
            out.append(Cell("\b" * back + ERASE, "", breaks=True))
        self._new_line(out)
        out += word
        self._word, self._column = word, width


def rendered(cells: list[Cell]) -> str:
    """As the terminal takes it; a line never ends within a style."""
    parts = []
    for sgr, group in groupby(cells, key=lambda cell: cell.sgr):
        text = "".join(cell.text for cell in group)
        parts.append(f"\x1b[{sgr}m{text}{RESET}" if sgr else text)
    return "".join(parts)
