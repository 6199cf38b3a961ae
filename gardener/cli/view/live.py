"""A live screen: takes pictures on the loop, draws them on a thread, leaves the terminal as it was.

While the screen is on, what is written to stderr, and to stdout if that is a terminal too, is kept;
it comes out, once and in order, when the screen closes. A terminal that stands still (Ctrl-S, a
slow ssh) stops the drawing thread and nothing else.
"""

import asyncio
import contextlib
import io
import os
import stat
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TextIO

from rich.console import Console, RenderableType
from rich.control import Control

PERIOD = 0.2
"""Seconds between two pictures."""

KEPT = 1000
"""Lines of stderr that are kept while the screen is on."""


def possible() -> bool:
    """Whether stderr is a terminal that can show a live view."""
    return (
        sys.stderr.isatty()
        and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
        and (sys.stderr.encoding or "").lower().replace("-", "") == "utf8"
    )


def spares_stdout() -> bool:
    """Whether what goes to stdout is seen in spite of a live view: a terminal gets it when the
    screen closes, a file holds it. Where a pipe ends nobody knows: at this very terminal perhaps
    (`| tee answer.txt`), and what is drawn there under the screen is gone with it."""
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):  # closed, or no stream of the system at all
        return True
    return not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode)


class Kept(io.TextIOBase):
    """Stands in for stdout or stderr while the screen is on."""

    def __init__(self, real: TextIO, lines: int | None) -> None:
        """Keeps the last `lines` lines; everything if None."""
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
        """The last lines that are not empty, at most `count`, and none of the first `after`."""
        count = min(count, self.count - after)
        if count < 1:
            return ()
        return tuple(line for line in tuple(self._lines)[-count:] if line.strip())

    def end_line(self) -> None:
        if self._open:
            self.write("\n")

    def give_back(self) -> None:
        """Write all that was kept to the real stream."""
        text = "".join(f"{line}\n" for line in self._lines) + self._open
        self._lines.clear()
        self._open = ""
        self.real.write(text)
        self.real.flush()


class Live:
    """Shows what `look` returns, from `async with` to `close` or the end of the block.

    look: called on the loop, must be quick; it returns a function of width and height that draws,
    which is called on a thread.
    """

    def __init__(self, look: Callable[[], Callable[[int, int], RenderableType]]) -> None:
        self._look = look
        self._console = Console(file=sys.stderr)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="view")
        self._stack = contextlib.ExitStack()
        self._ticking: asyncio.Task[None] | None = None
        self._size = (0, 0)
        self.stderr = Kept(sys.stderr, KEPT)

    async def __aenter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Undone from the last to the first: the messages come out before the answer.
            if sys.stdout.isatty():
                out = Kept(sys.stdout, None)
                stack.callback(out.give_back)
                stack.enter_context(contextlib.redirect_stdout(out))
            stack.callback(self.stderr.give_back)
            stack.enter_context(contextlib.redirect_stderr(self.stderr))
            stack.callback(self._leave)
            self._console.set_alt_screen(True)
            self._console.show_cursor(False)
            self._stack = stack.pop_all()
        self._ticking = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and isinstance(sys.stdout, Kept):
            sys.stdout.end_line()  # what follows shall not stand behind half an answer
        await self.close()

    async def close(self) -> None:
        """Take the screen down, and give out what was kept. Closing twice is no error."""
        ticking, self._ticking = self._ticking, None
        if ticking is None:
            return
        ticking.cancel()
        try:
            await asyncio.gather(ticking, return_exceptions=True)
        finally:
            self._restore()

    def _restore(self) -> None:
        self._pool.shutdown(wait=True)
        self._stack.close()

    def _leave(self) -> None:
        self._console.show_cursor(True)
        self._console.set_alt_screen(False)

    async def _run(self) -> None:
        try:
            await self._tick()
        except Exception as error:  # a fault of the view is no reason to lose an answer
            self._restore()
            sys.stderr.write(f"the live view ended: {type(error).__name__}: {error}\n")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        drawing: asyncio.Future[None] | None = None
        while True:
            draw = self._look()
            if drawing is None or drawing.done():
                if drawing is not None:
                    drawing.result()
                drawing = loop.run_in_executor(self._pool, self._draw, draw)
            await asyncio.sleep(PERIOD)

    def _draw(self, draw: Callable[[int, int], RenderableType]) -> None:
        size = self._console.size
        if self._size != size:
            self._console.clear()
            self._size = size
        self._console.print(Control.home(), draw(*size), sep="", end="")
