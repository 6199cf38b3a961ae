"""How long requests wait for a ring that broke."""

import asyncio
from collections.abc import Callable


class Patience:
    """So many `seconds`, from when it begins."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, over: Callable[[], None]) -> None:
        """`over` is called when it is over, unless it is ended before; at once if there is none."""
        self.end()
        if self.seconds:
            self._timer = asyncio.get_running_loop().call_later(self.seconds, over)
        else:
            over()

    def end(self) -> None:
        """There is no more need of it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
