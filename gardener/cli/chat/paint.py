"""An answer on the terminal, as it comes: harmless, tinted, its lines broken between words."""

from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from rich.cells import cell_len

from gardener.cli.chat.marks import Look, Marks
from gardener.cli.chat.source import Part
from gardener.cli.view.text import clean

PLAIN = Look(breaks=False)
JOINER = "\N{ZERO WIDTH JOINER}"
CLINGING = frozenset("、。，．！？：；）」』】》〉〕］｝・ー…％")
"""Wide characters that no line begins with."""

UNSURE = frozenset((JOINER, "\N{SOFT HYPHEN}", "\N{VARIATION SELECTOR-16}", "\u20e3"))
"""What stands in a word whose width terminals do not agree on, beside flags and colours of skin."""

BLANKS = frozenset((" ", "\N{IDEOGRAPHIC SPACE}"))
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

    @property
    def is_unsure(self) -> bool:
        """Whether terminals differ on how wide it is, or what it stands beside."""
        flag, skin = "\U0001f1e6" <= self.text <= "\U0001f1ff", "🏻" <= self.text <= "🏿"
        return self.text in UNSURE or flag or skin


class Painter:
    """Writes one answer. A word that does not fit is taken back and begun on the next line: all
    else, once written, stays. Wide characters, as of Chinese, are words of their own."""

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
        if full and cell.text in BLANKS:
            self._new_line(out)  # in place of the blank
            return
        if cell.breaks and self._word and _may_part(self._word[-1], cell):
            self._word, self._begins = [], self._column
        if full and cell.width and self._begins:
            self._move_word(out)
        out.append(cell)
        self._column += cell.width
        if self._column > limit + 1:  # the terminal has begun a line by itself
            self._column, self._begins = cell.width, 0
        if cell.text in BLANKS:
            self._word, self._begins = [], self._column
        else:
            self._word.append(cell)

    def _new_line(self, out: list[Cell]) -> None:
        out.append(Cell("\n", "", breaks=True))
        self._column, self._begins, self._word = 0, 0, []

    def _move_word(self, out: list[Cell]) -> None:
        """Begin the word that stands at the end of the line on the next one, if what is written
        of it can be taken back."""
        word, width = self._word, sum(cell.width for cell in self._word)
        unseen = min(len(word), len(out))  # not written yet, so nothing is to be taken back
        while unseen and out[-unseen:] != word[-unseen:]:
            unseen -= 1
        seen = word[: len(word) - unseen]
        if any(cell.is_unsure for cell in seen):
            return
        del out[len(out) - unseen :]
        back = sum(cell.width for cell in seen)
        if back:
            out.append(Cell("\b" * back + ERASE, "", breaks=True))
        self._new_line(out)
        out += word
        self._word, self._column = word, width


def _may_part(before: Cell, after: Cell) -> bool:
    """Whether a line may end between these two, though no blank does."""
    if before.text == JOINER or after.text in CLINGING:
        return False
    return after.width == 2 or (before.width == 2 and after.text.isalnum())


def rendered(cells: list[Cell]) -> str:
    """As the terminal takes it; a line never ends within a style."""
    parts = []
    for sgr, group in groupby(cells, key=lambda cell: cell.sgr):
        text = "".join(cell.text for cell in group)
        parts.append(f"\x1b[{sgr}m{text}{RESET}" if sgr else text)
    return "".join(parts)
