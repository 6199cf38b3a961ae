"""Real schedulers and executors of a tiny model, and requests that share them, step by step in an
order that a random generator chooses. No sockets, no threads."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import tiny
from fakes import Alone, Drafts, FakeRing

from gardener.decoding.costs import Costs
from gardener.decoding.events import Judged
from gardener.decoding.limits import Limits
from gardener.decoding.policy import Bounds, make
from gardener.decoding.speculation import Speculation
from gardener.decoding.tree import Guess
from gardener.model.checkpoint.slices import Slice
from gardener.model.device.seats import LEAST
from gardener.model.kv_slots import SlotTable
from gardener.protocol.messages import Advance, Close, Open, Segment, Verdict
from gardener.protocol.reports import Failed
from gardener.runtime.trace import Trace
from gardener.runtime.worker import AnyWorker
from gardener.stages.executor import Executor
from gardener.stages.forward import PlacedSegment
from gardener.stages.load import load_stage
from gardener.stages.room import Room
from gardener.stages.scheduler import Scheduler

T = TypeVar("T")

Down: TypeAlias = Open | Segment | Advance | Close


class AtOnce(AnyWorker):
    """Does the work where it is told to."""

    def call(
        self, done: Callable[[T | None, BaseException | None, float], None], work: Callable[[], T]
    ) -> None:
        try:
            result = work()
        except Exception as error:
            done(None, error, 0.0)
        else:
            done(result, None, 0.0)

    def submit(self, work: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        work(*args, **kwargs)

    @property
    def waiting(self) -> int:
        return 0

    def close(self, patience: float | None = None) -> None:
        """Nothing waits."""


@dataclass
class Asked(FakeRing):
    """One request; the links are those of the ring."""

    shared_links: list[deque[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.links, self.out = self.shared_links, set()
        self.run(self.round.start(self.now))


class Truth:
    """What the plain model writes."""

    def __init__(self, model: Any) -> None:
        self.next = cache(lambda text: int(tiny.last_logits(model, text).argmax()))

    def after(self, prompt: Sequence[int], count: int) -> list[int]:
        text = list(prompt)
        for _ in range(count):
            text.append(self.next(tuple(text)))
        return text[len(prompt) :]

    def drafts(self, chance: random.Random) -> Drafts:
        """Guesses of which some come true."""

        def guesses(text: Sequence[int]) -> tuple[Guess, ...]:
            right = self.next(tuple(text)) if len(text) < 60 else 0
            wrong = (right + chance.randrange(1, tiny.VOCAB)) % tiny.VOCAB
            return tuple(map(Guess, chance.sample([right, wrong], 2), (0.5, 0.3)))

        return guesses


class RealStages:
    """`rooms`: slots for which each stage has memory; None: not bounded."""

    def __init__(
        self, folder: Path, cut: Sequence[Slice], chance: random.Random, room: int | None = None
    ) -> None:
        self.chance = chance
        self.executors: list[Executor] = []
        self.schedulers: list[Scheduler] = []
        self.links: list[deque[Down]] = [deque() for _ in cut]
        self.verdicts: deque[Verdict] = deque()
        self.failures: list[Failed] = []
        self.asked: dict[int, Asked] = {}
        for number, held in enumerate(cut):
            executor = load_stage(folder, held)
            self.executors.append(executor)
            self.schedulers.append(
                Scheduler(
                    executor,
                    AtOnce(),
                    Trace(),
                    partial(self._passed, number),
                    lambda: None,
                    partial(self._failed, number + 1),
                    room=Room(room),
                )
            )

    def ask(
        self,
        prompt: Sequence[int],
        new_tokens: int = 8,
        *,
        drafts: Drafts = lambda text: (),
        policy: str = "plain",
        **more: Any,
    ) -> Asked:
        """Begin a request; `more`: of its `Speculation`."""
        request = len(self.asked) + 1
        speculation = Speculation(
            request,
            prompt,
            make(policy, Bounds(rows=4, window=3, floor=0.01)),
            Limits(new_tokens, 200),
            chunk=5,
            instant=(True,),
            **more,
        )
        alone = Alone(speculation, Costs.flat(len(self.links)))
        made = Asked(alone, drafts, self.chance, len(self.links), shared_links=self.links)
        self.asked[request] = made
        return made

    def send(self, message: Down) -> None:
        """As the holder does."""
        self.links[0].append(message)

    def finish(self, *asked: Asked) -> None:
        """Until these have ended and nothing is under way; all of them if none is named."""
        for _ in range(20_000):
            over = all(each.reason for each in asked) if asked else not self._choices()
            if (over and not any(self.links)) or not self.step():
                return
        raise AssertionError("not finished")

    def step(self) -> bool:
        """Do one thing that can be done; false if there is none."""
        choices = self._choices()
        if not choices:
            return False
        self.chance.choice(choices)()
        for executor, scheduler in zip(self.executors, self.schedulers, strict=True):
            waste = executor.passes.waste
            most = waste * scheduler.slots + (LEAST * len(self.asked) if waste > 1 else 0)
            assert executor.kv_memory <= most * executor.kv_slot
        return True

    def _choices(self) -> list[Callable[[], object]]:
        choices: list[Callable[[], object]] = [
            partial(self._deliver, number) for number, link in enumerate(self.links) if link
        ]
        if self.verdicts:
            choices.append(self._judge)
        waking = [each for each in self.asked.values() if each.round.wake is not None]
        return choices or [each.wake for each in waking]

    def _judge(self) -> None:
        verdict = self.verdicts.popleft()
        asked = self.asked[verdict.request]
        asked.run(asked.round.handle(Judged(verdict), asked.now))

    def _deliver(self, number: int) -> None:
        """As `StageNode.heard` does."""
        message, scheduler = self.links[number].popleft(), self.schedulers[number]
        match message:
            case Segment():
                scheduler.receive(message)
                return
            case Open():
                scheduler.open(message)
            case Advance():
                scheduler.advance(message)
            case Close():
                scheduler.close(message.request, message.keep)
        closes = isinstance(message, Close)
        if number + 1 < len(self.links) and (closes or not scheduler.gave_up(message.request)):
            self.links[number + 1].append(message)

    def _passed(self, number: int, message: Segment | Verdict) -> None:
        if isinstance(message, Verdict):
            self.verdicts.append(message)
        else:
            self.links[number + 1].append(message)

    def _failed(self, stage: int, request: int, seq: int, error: BaseException) -> None:
        self.failures.append(Failed(stage, request, seq, str(error)))


def decoded(stages: Sequence[Executor], tokens: Sequence[int], count: int) -> list[int]:
    """Greedy, one token at a time, through stages one behind the other."""
    table = SlotTable(len(tokens), 100)
    for stage in stages:
        stage.open(Open(7, 1, 1))
    ids, new = list(range(len(tokens))), list(tokens)
    text: list[int] = []
    while len(text) < count:
        placement = table.place(ids, [i - 1 for i in ids], ids)
        placed = PlacedSegment(7, placement, tokens=new, pick_rows=[len(ids) - 1])
        for stage in stages:
            done = stage.run([placed])
            assert done is not None
            placed = PlacedSegment(7, placement, hidden=done[0].hidden, pick_rows=placed.pick_rows)
            text += done[0].picks
        table.advance(ids[-1:], ids[-1] + 1)
        ids, new = [ids[-1] + 1], text[-1:]
    for stage in stages:
        stage.close(7)
        stage.close(7)
    return text
