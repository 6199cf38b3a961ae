"""What a stage does before it serves, and how far it is: one object that says so to whoever asks.

It is told on the worker thread and read on the event loop: what is known at a time is one object,
so there is nothing to lock. The live view, the metrics, and whoever dials read the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from gardener.protocol.messages import Card
from gardener.runtime import clock

LONG = 10.0
"""Seconds from which on it is told how long a phase has taken."""


class Phase(StrEnum):
    """In the order in which a stage passes them. Each is said of the stage: `stage 2 is ...`."""

    STANDING_BY = "stands by for a stage that stays away"
    STARTING = "is starting"
    IN_LINE = "waits for its turn to load"
    FINDING = "is looking for its model"
    LOADING = "is loading its weights"
    TIMING = "is timing itself, to be ready in a moment"
    SERVING = "serves"


@dataclass(frozen=True, slots=True)
class Moment:
    """How things are.

    words  what is done, if it can be said more exactly than by the name of the phase
    since  when the phase began, on `clock.now`
    done   share of it that is done, 0 to 1; None: nobody can say
    """

    phase: Phase
    since: float
    words: str = ""
    done: float | None = None

    def told(self, now: float) -> str:
        """As it is said of the stage: `is loading its weights, 34 %, for 12 s`."""
        told = self.words or self.phase.value
        if self.done is not None:
            told += f", {100 * self.done:.0f} %"
        seconds = now - self.since
        return f"{told}, for {seconds:.0f} s" if seconds >= LONG else told


class Phases:
    """Those of one stage, which is told at the beginning of each."""

    def __init__(
        self, stage: int, now: Callable[[], float] = clock.now, spare: int | None = None
    ) -> None:
        """`spare`: its number, of one that is no stage yet."""
        self.stage = stage
        self._spare = spare
        self._now = now
        self.moment = Moment(Phase.STARTING, now())

    @property
    def who(self) -> str:
        """`stage 2`, or `spare 1` as long as that is no stage."""
        return f"stage {self.stage}" if self.stage else f"spare {self._spare}"

    def begin(self, phase: Phase, words: str = "") -> None:
        """The next phase; see `Moment`."""
        self.moment = Moment(phase, self._now(), words)

    def progress(self, done: int, whole: int) -> None:
        """So much of the present phase is done, of so much in all, in whatever unit."""
        if whole > 0:
            self.moment = replace(self.moment, done=min(done / whole, 1.0))

    @property
    def serves(self) -> bool:
        """Whether the stage can take links and work."""
        return self.moment.phase is Phase.SERVING

    @property
    def loaded(self) -> float:
        """Share of the weights that has been read."""
        moment = self.moment
        if moment.phase in (Phase.TIMING, Phase.SERVING):
            return 1.0
        return (moment.done or 0.0) if moment.phase is Phase.LOADING else 0.0

    @property
    def doing(self) -> str:
        """What keeps the stage from serving: `is loading its weights, 34 %`; "": nothing."""
        return "" if self.serves else self.moment.told(self._now())

    def refusal(self, peer: Card) -> str:
        """Why no peer, whoever it is, can have a link yet."""
        return f"{self.who} {self.doing or 'is about to serve'}"
