"""What is written to a standard stream while a live view covers the terminal."""

import io
from collections import deque
from typing import TextIO


class KeptOutput(io.TextIOBase):
    """Stands in for stdout or stderr while the screen is on."""

    def __init__(self, real: TextIO, lines: int | None) -> None:
        """Keep the last `lines` lines, or everything if that is None."""
        self.real = real
        self._lines: deque[str] = deque(maxlen=lines)
        self.count = 0  # lines until now
        self._open = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.real.encoding

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.real.isatty()

    def fileno(self) -> int:
        return self.real.fileno()

    def write(self, text: str) -> int:
        *whole, self._open = (self._open + text).split("\n")
        self._lines.extend(whole)
        self.count += len(whole)
        return len(text)

    def last(self, count: int, after: int = 0) -> tuple[str, ...]:
        """The lines that are not empty among the last `count`, without the first `after` of all."""
        count = min(count, self.count - after)
        if count < 1:
            return ()
        return tuple(line for line in tuple(self._lines)[-count:] if line.strip())

    def end_line(self) -> None:
        """End a line that was begun."""
        if self._open:
            self.write("\n")

    def give_back(self) -> None:
        """Write all that was kept to the real stream."""
        text = "".join(f"{line}\n" for line in self._lines) + self._open
        self._lines.clear()
        self._open = ""
        self.real.write(text)
        self.real.flush()
