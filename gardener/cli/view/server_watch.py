"""The live view of a server: of the ring that it has just now, if any, and of its requests."""

from typing import Protocol

import msgspec

from gardener.cli.view.holder_watch import HolderWatch
from gardener.holder.holder import Holder
from gardener.serve.asked import Ring
from gardener.watch.status import HolderStatus


class HasRing(Protocol):
    """Who keeps a ring open (`serve.keeper.RingKeeper`)."""

    ring: Ring | None

    @property
    def broken(self) -> bool:
        """Whether there is no ring because the one before broke."""
        ...


class ServerWatch(HolderWatch):
    """The live view of a server that `follow` names."""

    _address = ""
    _keeper: HasRing | None = None
    _holder: Holder | None = None

    def follow(self, keeper: HasRing, address: str) -> None:
        """Watch the rings that `keeper` has, one after the other; they are served at `address`."""
        self._keeper, self._address = keeper, address

    def status(self, now: float) -> HolderStatus:
        """How things are at `now`, in monotonic seconds."""
        ring = None if self._keeper is None else self._keeper.ring
        if ring is None:
            self._watcher = None
        elif ring.holder is not self._holder:
            self._holder = ring.holder
            self.begin(ring.holder, ring.prompter.backend)
        status = msgspec.structs.replace(super().status(now), address=self._address)
        if not status.policy:  # there is nothing else to show
            status = msgspec.structs.replace(status, said=self.live.stderr.last(60))
        if ring is None and self._holder is not None:
            lost = self._keeper is not None and self._keeper.broken
            state = "the ring broke" if lost else "closing the ring"
            return msgspec.structs.replace(status, state=state, trouble=lost)
        if ring is not None and not status.running and not status.trouble:
            since = now - self._began
            return msgspec.structs.replace(status, state="idle", elapsed=since)
        return status
