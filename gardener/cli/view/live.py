"""A live screen: a status is taken on the event loop and drawn on a thread.

While the screen is on, what is written to stderr, and to stdout if that is a terminal too, is kept;
it comes out, once and in order, when the screen closes. A terminal that stands still (Ctrl-S, a
slow ssh) stops the drawing thread and nothing else.
"""

import asyncio
import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Self, TypeVar

from rich.console import Console
from rich.control import Control
from rich.segment import Segments

from gardener.cli import terminal
from gardener.cli.view.kept_output import KeptOutput
from gardener.cli.view.keys import Keyboard
from gardener.cli.view.lines import Line, styled
from gardener.cli.view.overlay import box, tag

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


class Live(Generic[Status]):
    """Shows one status after another, from `async with` to `close` or the end of the block.

    Keys are heard meanwhile where standard input is a terminal: `q` takes the screen down, `p`
    holds the picture, `h` shows what keys and signs mean.
    """

    def __init__(
        self,
        take: Callable[[float], Status],
        draw: Callable[[Status, int, int], Segments],
        help: Sequence[Line] = (),
        *,
        shown: bool = True,
        unseen: bool = False,
        hears: bool = True,
    ) -> None:
        """`take` is called on the loop with the time in monotonic seconds, and must be quick.

        `draw` is called on a thread, with what `take` returned and the size of the terminal. `help`
        explains what it draws. `shown`: have a screen at all. `unseen`: go on taking while there is
        none. `hears`: keys are heard.
        """
        self._take, self._draw, self._help = take, draw, help
        self._console = Console(file=sys.stderr)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="view")
        self._stack = contextlib.ExitStack()
        self._ticking: asyncio.Task[None] | None = None
        self._drawing: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._keyboard = Keyboard(self._hit)
        self._shown, self._unseen, self._hears = shown, unseen, hears
        self._size = (0, 0)
        self._paused = self._helps = self._leaving = False
        self._picture: Status | None = None
        self.closed = asyncio.Event()  # there is no screen (any more)
        self.keys: dict[str, Callable[[], object]] = {
            "q": self._leave,
            "p": self._pause,
            "h": self._explain,
            "?": self._explain,
        }
        self.stderr = KeptOutput(sys.stderr, KEPT)

    async def __aenter__(self) -> Self:
        if self._shown:
            self._open()
        else:
            self.closed.set()
        self._ticking = asyncio.create_task(self._run())
        return self

    def _open(self) -> None:
        with contextlib.ExitStack() as stack:
            # Undone from the last to the first: the messages come out before the answer.
            stack.callback(self.closed.set)
            if sys.stdout.isatty():
                out = KeptOutput(sys.stdout, None)
                stack.callback(out.give_back)
                stack.enter_context(contextlib.redirect_stdout(out))
            stack.callback(self.stderr.give_back)
            stack.enter_context(contextlib.redirect_stderr(self.stderr))
            stack.enter_context(terminal.screen())
            stack.enter_context(self._console.screen())
            stack.callback(self._pool.shutdown)
            stack.callback(self._keyboard.close)
            self._stack = stack.pop_all()

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and isinstance(sys.stdout, KeptOutput):
            sys.stdout.end_line()  # what follows must not stand behind half an answer
        await self.close()

    async def close(self) -> None:
        """Show how things are now, take the screen down, and give out what was kept. Closing twice
        is no error."""
        ticking, self._ticking = self._ticking, None
        if ticking is None:
            return
        gone_on = not ticking.done()
        ticking.cancel()
        try:
            await asyncio.gather(ticking, return_exceptions=True)
            if gone_on:
                self._last()
        finally:
            self._stack.close()

    def _last(self) -> None:
        """The last status. What is drawn is that, whatever was held."""
        with self._faults():
            self._picture = self._take(time.monotonic())
            if not self.closed.is_set():
                self._pool.submit(self._show, self._picture, plain=True)

    async def _run(self) -> None:
        with self._faults():
            await self._tick()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """A fault of the view is no reason to lose an answer."""
        try:
            yield
        except Exception as error:
            self._stack.close()
            sys.stderr.write(f"the live view ended: {type(error).__name__}: {error}\n")

    async def _tick(self) -> None:
        due = 0.0
        while self._unseen or not self.closed.is_set():
            now = time.monotonic()
            if now >= due:
                due = now + PERIOD
                status = self._take(now)
                if not self._paused or self._picture is None:
                    self._picture = status
                if self._hears and not self.closed.is_set():
                    self._keyboard.refresh()
            self._redraw()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due - time.monotonic()):
                    await self._wake.wait()
                    due = 0.0

    def _redraw(self) -> None:
        """Draw what there is, unless the terminal still takes the picture before."""
        if self.closed.is_set() or self._picture is None:
            return
        if self._drawing is not None:
            if not self._drawing.done():
                return
            self._drawing.result()
        if self._leaving:
            self._stack.close()
            return
        loop = asyncio.get_running_loop()
        self._drawing = loop.run_in_executor(self._pool, self._show, self._picture)

    def _show(self, status: Status, plain: bool = False) -> None:
        size = self._console.size
        if self._size != size:
            self._console.clear()
            self._size = size
        picture = self._draw(status, *size)
        if not plain:
            picture = self._laid_over(picture, *size)
        self._console.print(Control.home(), picture, sep="", end="")

    def _laid_over(self, picture: Segments, width: int, height: int) -> Segments:
        """The picture under what the keys have asked for."""
        if self._helps:
            return box(picture, self._help, width, height)
        if self._paused:
            return tag(picture, [styled(" paused, p goes on ", "reverse")], width)
        if self._keyboard.there:
            return tag(picture, [styled("h help", "dim")], width)
        return picture

    # --- keys --------------------------------------------------------------------------------

    def _hit(self, key: str) -> None:
        if action := self.keys.get(key):
            action()
            self._wake.set()

    def _leave(self) -> None:
        self._leaving = True  # once the terminal has taken what is drawn now

    def _pause(self) -> None:
        self._paused = not self._paused

    def _explain(self) -> None:
        self._helps = not self._helps
