"""The time in which a ring is broken: what broke it, and how long those who ask wait for it."""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Protocol

from gardener.decoding.speculation import Speculation
from gardener.errors import PeerLost
from gardener.holder.advice import Advice
from gardener.holder.outage import LossReport, mended, ring_broke
from gardener.runtime import clock

ADDRESS = re.compile(r" at \S+:\d+")
"""In a sentence: for those who ask from elsewhere it is left out."""


class Why(Protocol):
    """Gives the sentence; see `outage.ring_broke`. `here`: with addresses and commands."""

    def __call__(self, asked: Speculation | None, *, here: bool, own: bool, waits: bool) -> str: ...


class Downtime:
    """One after the other, of the same ring.

    lost      stages that were lost
    refusal   of who asks now: nobody waits any more; None: they may wait
    patience  seconds for which requests wait
    """

    def __init__(self, patience: float, advice: Advice, news: Callable[[str], None]) -> None:
        """`news` is told that the ring broke, and that it stands again."""
        self.lost: frozenset[int] = frozenset()
        self.refusal: PeerLost | None = None
        self.patience = patience
        self._advice, self._news = advice, news
        self._why: Why | None = None
        self._newest: Speculation | None = None  # when it broke
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(
        self,
        reports: Sequence[LossReport],
        newest: Speculation | None,
        several: bool,
        over: Callable[[], None],
    ) -> None:
        """The ring of these reports broke, while `newest` was the newest request, maybe one of
        `several`. `over` is called when those that wait have waited long enough, at once if they do
        not wait at all."""
        stages = len(self._advice.cards()) - 1
        self.lost = frozenset(report.lost.stage for report in reports)
        places = (self._advice, self._advice.brief)  # for who is here, and elsewhere
        # What is to be done about a stage is asked now: later, another process may be there.
        about = [{stage: each.about(stage) for stage in self.lost - {0}} for each in places]

        def why(asked: Speculation | None, *, here: bool, own: bool, waits: bool) -> str:
            advise, called = about[not here].__getitem__, places[not here].called
            return ring_broke(reports, stages, asked, advise, self.patience, waits, called, own)

        self._why, self._newest = why, newest
        self._since = min(report.at for report in reports)
        if self.patience:
            self._news(why(newest, here=True, own=not several, waits=True))
            self._timer = asyncio.get_running_loop().call_later(self.patience, self._end, over)
        else:
            self._end(over)

    def _end(self, over: Callable[[], None]) -> None:
        self.refusal = self._error(self._newest, own=False)
        over()

    def mended(self, going_on: int) -> None:
        """The ring stands again, and so many requests go on."""
        if self.patience:
            self._news(mended(clock.now() - self._since, going_on))
        self.leave()

    def leave(self) -> None:
        """Nobody waits for it any more."""
        self.lost, self.refusal, self._why = frozenset(), None, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def error(self, asked: Speculation) -> PeerLost:
        """For a request that has waited long enough."""
        return self._error(asked, own=True)

    def _error(self, asked: Speculation | None, own: bool) -> PeerLost:
        assert self._why is not None
        brief = self._why(asked, here=False, own=own, waits=False)
        return PeerLost(self._why(asked, here=True, own=own, waits=False), brief)

    def condition(self, obstacle: str) -> str:
        """What broke it, and what is in the way now, for whoever asks from anywhere; empty: it is
        not broken."""
        if self._why is None:
            return ""
        broke = self._why(self._newest, here=False, own=False, waits=self.patience > 0)
        return f"{broke}; now: {ADDRESS.sub('', obstacle)}" if obstacle else broke
