"""What was wrong with a run. Each answer is a list of sentences; empty: nothing was."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gardener.errors import GardenerError, PeerLost, RemoteError
from gardener.holder.admission import Admission
from gardener.net.link import Link
from gardener.rings.simulate.injected.case import Ask
from gardener.rings.simulate.network import SimulatedTransport
from gardener.rings.simulate.ring import Seat

RACE = "came first"
"""Of two peers that greet a stage at once one must go: no fault of anybody."""


@dataclass
class Answer:
    """What became of a request. `left`: its consumer went away; `gone`: its holder died."""

    ask: Ask
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # of its pieces
    reason: str | None = None
    error: GardenerError | None = None
    over: bool = False
    ended: float = 0.0  # when
    left: bool = False
    gone: bool = False

    @property
    def right(self) -> bool:
        """All of it was written."""
        return self.over and not (self.left or self.error) and self.tokens == self.ask.whole

    def wrong(self) -> list[str]:
        """What is wrong with it."""
        whole, count = self.ask.whole, len(self.tokens)
        if self.tokens != whole[:count]:
            return [f"wrong text: {self.tokens}, and not {whole}"]
        if self.gone or self.left:
            return []
        if self.error is not None:
            honest = type(self.error) is PeerLost and self.reason in ("lost", None)
            return [] if honest else [f"{type(self.error).__name__}: {self.error}"]
        if count != len(whole) or self.reason != self.ask.reason:
            return [f"it ended with {count} of {len(whole)} tokens, because of {self.reason}"]
        return []


def breaches(ends: Iterable[SimulatedTransport]) -> list[str]:
    """Peers that said what they may not say, by those who heard it."""
    found: dict[str, None] = {}
    for end in ends:
        link = end.protocol
        why = link.ended if isinstance(link, Link) else None
        if isinstance(why, RemoteError) and RACE not in str(why):
            found[f"breach: {why}"] = None
    return list(found)


def unwell(said: Iterable[tuple[float, int, str]]) -> list[str]:
    """What the stages say that they should not have to. A request that begins with what was just
    given up is refused rightly: that must not reach whoever asked."""
    bad = ("could not be computed", "this is a bug")
    return [
        f"stage {number} at {at:.3f} s: {line}"
        for at, number, line in said
        if any(each in line for each in bad)
    ]


def kept_at_holder(admission: Admission) -> list[str]:
    """Where all requests are over and nothing is kept, nothing may be left."""
    held = {"sessions": admission.sessions, "slots": admission.prefixes.used}
    return [f"the holder still has {what}: {each}" for what, each in held.items() if each]


def kept_at_stage(number: int, seat: Seat) -> list[str]:
    """Nothing may be left where nothing is kept."""
    scheduler = seat.node.scheduler
    held = {
        "open requests": scheduler.requests,
        "kept requests": scheduler.kept,
        "requests that were never closed": scheduler.unclosed,
        "slots": scheduler.slots,
        "waiting segments": scheduler.waiting,
        "errands": seat.worker.waiting,
        "texts": seat.stage.texts,
    }
    return [f"stage {number} still has {what}: {each}" for what, each in held.items() if each]


def left_over(own: "asyncio.Task[Any] | None") -> list[str]:
    """Tasks that go on after the end."""
    tasks = asyncio.all_tasks() - {own}
    return [f"a task goes on: {task.get_coro()}" for task in tasks]


def failed(task: "asyncio.Task[Any] | None") -> list[str]:
    """A task that ended with an error of which nobody was told."""
    if task is None or not task.done() or task.cancelled() or task.exception() is None:
        return []
    return [f"{task.get_coro()} failed: {task.exception()!r}"]
