"""A live screen: a status is taken on the event loop and drawn on a thread.

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
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Self, TextIO, TypeVar

from rich.console import Console, RenderableType
from rich.control import Control

PERIOD = 0.2
"""Seconds between two frames."""

KEPT = 1000
"""Lines of stderr that are kept while the screen is on."""

Status = TypeVar("Status")


def possible() -> bool:
    """Whether stderr is a terminal that can show a live view."""
    return (
        sys.stderr.isatty()
        and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
        and (sys.stderr.encoding or "").lower().replace("-", "") == "utf8"
    )


def spares_stdout() -> bool:
    """Whether what goes to stdout is seen in spite of a live view.

    A terminal gets it when the screen closes, and a file holds it. A pipe may end at this very
    terminal (`| tee answer.txt`), and what is drawn there under the screen is lost with it.
    """
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):  # closed, or no stream of the system at all
        return True
    return not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode)


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


class Live(Generic[Status]):
    """Shows one status after another, from `async with` to `close` or the end of the block."""

    def __init__(
        self,
        take: Callable[[float], Status],
        draw: Callable[[Status, int, int], RenderableType],
    ) -> None:
        """`take` is called on the loop with the time in monotonic seconds, and must be quick.

        `draw` is called on a thread, with what `take` returned and the size of the terminal.
        """
        self._take, self._draw = take, draw
        self._console = Console(file=sys.stderr)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="view")
        self._stack = contextlib.ExitStack()
        self._ticking: asyncio.Task[None] | None = None
        self._size = (0, 0)
        self.stderr = KeptOutput(sys.stderr, KEPT)

    async def __aenter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Undone from the last to the first: the messages come out before the answer.
            if sys.stdout.isatty():
                out = KeptOutput(sys.stdout, None)
                stack.callback(out.give_back)
                stack.enter_context(contextlib.redirect_stdout(out))
            stack.callback(self.stderr.give_back)
            stack.enter_context(contextlib.redirect_stderr(self.stderr))
            stack.enter_context(self._console.screen())
            stack.callback(self._pool.shutdown)
            self._stack = stack.pop_all()
        self._ticking = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and isinstance(sys.stdout, KeptOutput):
            sys.stdout.end_line()  # what follows must not stand behind half an answer
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
            self._stack.close()

    async def _run(self) -> None:
        try:
            await self._tick()
        except Exception as error:  # a fault of the view is no reason to lose an answer
            self._stack.close()
            sys.stderr.write(f"the live view ended: {type(error).__name__}: {error}\n")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        drawing: asyncio.Future[None] | None = None
        while True:
            status = self._take(time.monotonic())
            if drawing is None or drawing.done():
                if drawing is not None:
                    drawing.result()
                drawing = loop.run_in_executor(self._pool, self._show, status)
            await asyncio.sleep(PERIOD)

    def _show(self, status: Status) -> None:
        size = self._console.size
        if self._size != size:
            self._console.clear()
            self._size = size
        self._console.print(Control.home(), self._draw(status, *size), sep="", end="")
