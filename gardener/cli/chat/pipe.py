"""Messages where nobody types: every line of standard input is one."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from threading import Thread

from gardener.errors import UserError, reason


class Lines:
    """Reads on a thread, so that a pipe that stands still holds up nothing."""

    edits = dropped = False

    def __init__(self, read: Callable[[], str] | None = None) -> None:
        """`read`: gives the next line, and nothing at the end."""
        self._read = read or (lambda: sys.stdin.readline())
        self._lines: asyncio.Queue[str | Exception] = asyncio.Queue()
        self._thread: Thread | None = None

    async def read(self, draft: str = "") -> str:
        """The next line that is not blank. Raises EOFError after the last one, and UserError for
        what is no text."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = Thread(target=self._follow, args=(loop,), daemon=True)
            self._thread.start()
        found = await self._lines.get()
        if isinstance(found, Exception):
            self._lines.put_nowait(found)  # who asks again is told the same
            raise found
        return found

    async def confirm(self, question: str) -> bool:
        """Nobody is there to ask."""
        return False

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        def put(what: str | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the chat has ended
                loop.call_soon_threadsafe(self._lines.put_nowait, what)

        try:
            while line := self._read():
                if line.strip():
                    put(line.strip("\n"))
        except UnicodeError as error:
            put(UserError(f"a line is not {sys.stdin.encoding.upper()} text ({error}): convert it"))
        except (OSError, ValueError) as error:
            put(UserError(f"standard input cannot be read ({reason(error)})"))
        put(EOFError())
