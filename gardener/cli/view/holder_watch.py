"""The live view of a holder. It runs on the event loop, a few times a second, and only reads."""

import re
import time

import msgspec
from tokenizers import Tokenizer

from gardener.cli.view.holder_frame import draw
from gardener.cli.view.live import Live
from gardener.holder.holder import Holder
from gardener.watch.status import HolderStatus, StageStatus
from gardener.watch.watcher import RingWatcher


class HolderWatch:
    """The live view of a holder; `live` is its screen."""

    def __init__(self, waiting: str, stages: int = 0) -> None:
        """Show that `waiting` goes on, until the ring stands.

        `stages` is the number of stages that are started here; 0 if they run elsewhere.
        """
        self.live = Live(self.status, draw)
        self._waiting = waiting
        self._began = time.monotonic()
        self._said = dict.fromkeys(range(1, stages + 1), "")
        self._watcher: RingWatcher | None = None
        self._old_news = 0  # lines that were said before the ring stood

    def heard(self, line: str) -> None:
        """Take note of a line that a stage on this machine printed."""
        found = re.match(r"stage (\d+): (.*)", line)
        if found and int(found[1]) in self._said:
            self._said[int(found[1])] = found[2]

    def begin(self, holder: Holder, tokenizer: Tokenizer) -> None:
        """Watch a holder whose ring stands."""
        self._watcher = RingWatcher(holder, tokenizer)
        self._old_news = self.live.stderr.count

    def status(self, now: float) -> HolderStatus:
        """How things are at `now`, in monotonic seconds."""
        said, since = self.live.stderr.last(60, self._old_news), now - self._began
        if self._watcher is None:
            starting = (StageStatus(n, said=line or "starting") for n, line in self._said.items())
            return HolderStatus(self._waiting, elapsed=since, stages=tuple(starting), said=said)
        status = self._watcher.status(now)
        elapsed = status.elapsed if status.policy else since
        return msgspec.structs.replace(status, elapsed=elapsed, said=said)
