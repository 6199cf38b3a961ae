"""The live view of a holder. It runs on the event loop, a few times a second, and only reads."""

import asyncio
import re
import time
from typing import Self

import msgspec
from tokenizers import Tokenizer

from gardener.cli.view.holder_frame import HELP, draw
from gardener.cli.view.live import Live
from gardener.holder.holder import Holder
from gardener.watch.record import Recorder
from gardener.watch.status import HolderStatus, StageStatus
from gardener.watch.watcher import RingWatcher


class HolderWatch:
    """What is seen of a holder from `async with` to `close` or the end of the block: `live` shows
    it, and a recorder writes it down."""

    def __init__(
        self,
        waiting: str,
        stages: int = 0,
        recorder: Recorder | None = None,
        *,
        shown: bool = True,
        hears: bool = True,
    ) -> None:
        """Show that `waiting` goes on, until the ring stands.

        `stages` is the number of stages that are started here; 0 if they run elsewhere. `shown` on
        a screen; `hears` keys there.
        """
        self.live = Live(
            self._take, draw, HELP, shown=shown, unseen=recorder is not None, hears=hears
        )
        self._recorder = recorder
        self._waiting = waiting
        self._began = time.monotonic()
        self._said = dict.fromkeys(range(1, stages + 1), "")
        self._watcher: RingWatcher | None = None
        self._old_news = 0  # lines that were said before the ring stood

    async def __aenter__(self) -> Self:
        await self.live.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            await self.live.__aexit__(kind, *error)
        finally:
            await self._end_recording()

    async def close(self) -> None:
        """Look a last time, and give the screen back. Closing twice is no error."""
        await self.live.close()
        await self._end_recording()

    async def _end_recording(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            await asyncio.to_thread(recorder.close)

    def heard(self, line: str) -> None:
        """Take note of a line that a stage on this machine printed."""
        found = re.match(r"stage (\d+): (.*)", line)
        if found and int(found[1]) in self._said:
            self._said[int(found[1])] = found[2]

    def begin(self, holder: Holder, tokenizer: Tokenizer) -> None:
        """Watch a holder whose ring stands."""
        self._watcher = RingWatcher(holder, tokenizer)
        self._old_news = self.live.stderr.count

    def _take(self, now: float) -> HolderStatus:
        status = self.status(now)
        if self._recorder is not None:
            self._recorder.add(now, status)
        return status

    def status(self, now: float) -> HolderStatus:
        """How things are at `now`, in monotonic seconds."""
        said, since = self.live.stderr.last(60, self._old_news), now - self._began
        if self._watcher is None:
            starting = (StageStatus(n, said=line or "starting") for n, line in self._said.items())
            return HolderStatus(self._waiting, elapsed=since, stages=tuple(starting), said=said)
        status = self._watcher.status(now)
        elapsed = status.elapsed if status.policy else since
        return msgspec.structs.replace(status, elapsed=elapsed, said=said)
