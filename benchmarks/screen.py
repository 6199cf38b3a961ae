"""What stands on a terminal: reads what a program writes into one, as far as line-wise programs do.

No full-screen program is understood; a chat needs letters, colours, and moves of the cursor.
"""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segments
from rich.text import Text

SEQUENCE = re.compile(r"\x1b\[([?>=]?)([0-9;]*) ?([@-~])|\x1b[()].|\x1b[=>78]")
UNFINISHED = re.compile(r"\x1b(\[[0-9;?>= ]*)?$")


class Screen:
    """Cells of a character and the codes that select its look."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self._lines = [self._blank() for _ in range(rows)]
        self._row = self._column = 0
        self._look = ""
        self._rest = ""  # the beginning of a sequence
        self.asked = 0  # times that it was asked where the cursor is

    @property
    def position(self) -> tuple[int, int]:
        """Row and column of the cursor, from 1."""
        return self._row + 1, min(self._column, self.columns - 1) + 1

    def text(self) -> str:
        """Its lines, without colours."""
        return "\n".join("".join(text for text, _ in line).rstrip() for line in self._lines)

    def picture(self) -> Segments:
        """The same with colours."""
        lines = ("".join(f"\x1b[0;{look}m{text}" for text, look in line) for line in self._lines)
        console = Console(color_system="truecolor", force_terminal=True, width=self.columns)
        return Segments(Text.from_ansi("\n".join(lines), end="").render(console))

    def read(self, written: str) -> None:
        """Take in what was written."""
        text = self._rest + written
        unfinished = UNFINISHED.search(text)
        self._rest = unfinished[0] if unfinished else ""
        text = text[: len(text) - len(self._rest)]
        at = 0
        for found in SEQUENCE.finditer(text):
            self._print(text[at : found.start()])
            if found[3] and not found[1]:
                self._obey(found[3], [int(each or 0) for each in found[2].split(";")])
            at = found.end()
        self._print(text[at:])

    def _blank(self) -> list[tuple[str, str]]:
        return [(" ", "")] * self.columns

    def _print(self, text: str) -> None:
        for each in text:
            if each == "\n":
                self._row += 1
            elif each == "\r":
                self._column = 0
            elif each == "\b":
                self._column = max(min(self._column, self.columns - 1) - 1, 0)
            elif width := cell_len(each):
                self._put(each, width)
            if self._row == self.rows:
                self._lines = [*self._lines[1:], self._blank()]
                self._row -= 1

    def _put(self, each: str, width: int) -> None:
        if self._column + width > self.columns:
            self._column = 0
            self._print("\n")
        line = self._lines[self._row]
        line[self._column] = (each, self._look)
        line[self._column + 1 : self._column + width] = [("", "")] * (width - 1)
        self._column += width

    def _obey(self, command: str, numbers: list[int]) -> None:
        count = numbers[0] or 1
        match command:
            case "A" | "B":
                moved = self._row + (count if command == "B" else -count)
                self._row = min(max(moved, 0), self.rows - 1)
            case "C" | "D":
                moved = min(self._column, self.columns - 1) + (count if command == "C" else -count)
                self._column = min(max(moved, 0), self.columns - 1)
            case "K":
                self._lines[self._row][self._column :] = self._blank()[self._column :]
            case "J":
                self._lines[self._row][self._column :] = self._blank()[self._column :]
                for row in range(self._row + 1, self.rows):
                    self._lines[row] = self._blank()
            case "m":
                codes = ";".join(map(str, numbers))
                self._look = codes if not numbers[0] else f"{self._look};{codes}".strip(";")
            case "n":
                self.asked += 1


class Typed:
    """A command in a terminal that is typed into."""

    def __init__(self, words: list[str], columns: int, rows: int) -> None:
        self.screen = Screen(columns, rows)
        self._pid, self._end = pty.fork()
        size = struct.pack("HHHH", rows, columns, 0, 0)
        if self._pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            os.environ["TERM"] = "xterm-256color"
            os.environ.pop("NO_COLOR", None)
            os.execv(sys.executable, [sys.executable, *words])
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, size)

    def type(self, keys: str) -> None:
        """Hit keys."""
        os.write(self._end, keys.encode())

    def until_still(self, shows: str, seconds: float = 120.0, still: float = 1.0) -> None:
        """Read until the screen shows this and nothing more comes. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            if select.select([self._end], [], [], still)[0]:
                try:
                    data = os.read(self._end, 65536)
                except OSError as error:
                    raise TimeoutError(f"it ended:\n{self.screen.text()}") from error
                self.screen.read(data.decode(errors="replace"))
                for _ in range(self.screen.asked):
                    row, column = self.screen.position
                    os.write(self._end, f"\x1b[{row};{column}R".encode())
                self.screen.asked = 0
            elif re.search(shows, self.screen.text()):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{shows!r} never came:\n{self.screen.text()}")

    def end(self, keys: str) -> None:
        """Hit keys that end it, and wait."""
        self.type(keys)
        while True:
            try:
                if not os.read(self._end, 65536):
                    break
            except OSError:  # how Linux says that the other end is closed
                break
        os.waitpid(self._pid, 0)
        os.close(self._end)
