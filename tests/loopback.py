"""Real holders, nodes and links on loopback in one process; only the arithmetic is not real.

The stages "compute" `fakes.target`, a pure function of all tokens that a row may see. They read
these out of the placements that the scheduler makes, so a wrong mask or slot gives a wrong text.
"""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import fakes
import uvloop
from processes import free_ports

from gardener.decoding.limits import Limits
from gardener.decoding.policy import Bounds, make
from gardener.draft.ngram import NGram
from gardener.errors import GardenerError
from gardener.holder.holder import Holder
from gardener.model.checkpoint.slices import Slice
from gardener.model.placement import Ints
from gardener.net.address import Address
from gardener.net.link import Link
from gardener.protocol.messages import Card, Message, Open, Segment
from gardener.protocol.tensors import Tensor
from gardener.runtime.trace import Trace
from gardener.runtime.worker import Worker
from gardener.stages.forward import ComputedSegment, PlacedSegment
from gardener.stages.node import StageNode

CONTEXT = 512
PROMPT = (1, 2, 3, 1, 2, 3, 1)


class FakeStage:
    """Does what a stage does, with tokens for hidden states. `trouble` is called before a pass."""

    def __init__(self, number: int = 1, stages: int = 1) -> None:
        self.slice = Slice(number - 1, number, stages)
        self.layer = number - 1
        self.trouble: Callable[[], None] = lambda: None
        self.open_trouble: Callable[[], None] = lambda: None
        self.passes: list[list[int]] = []  # rows of each job of each forward pass
        self.caches: dict[int, dict[int, int]] = {}  # request -> slot -> token

    def check_open(self, message: Open) -> None:
        """It can compute everything."""

    def open(self, message: Open, shared: Ints | None = None) -> None:
        self.open_trouble()
        self.caches[message.request] = {}
        if message.prefix is not None and shared is not None:
            theirs = self.caches[message.prefix[0]]
            rows = enumerate(theirs[slot] for slot in shared.tolist())
            self.caches[message.request] = dict(rows)

    def keep(self, request: int, slots: Ints) -> None:
        cache = self.caches[request]
        self.caches[request] = dict(enumerate(cache[slot] for slot in slots.tolist()))

    def close(self, request: int) -> None:
        self.caches.pop(request, None)

    def check(self, segment: Segment) -> None:
        assert (segment.hidden is None) or not self.slice.is_first

    def run(self, jobs: Sequence[PlacedSegment]) -> list[ComputedSegment]:
        self.trouble()
        self.passes.append([job.rows for job in jobs])
        return [self._run(job, self.caches[job.request]) for job in jobs]

    def _run(self, job: PlacedSegment, cache: dict[int, int]) -> ComputedSegment:
        rows = job.rows
        hidden = job.hidden
        tokens = struct.unpack(f"<{rows}f", hidden.data) if hidden else job.tokens
        place = job.placement
        if place.moves is not None:
            moved = [cache[source] for source in place.moves.sources.tolist()]
            cache.update(zip(place.moves.targets.tolist(), moved, strict=True))
        cache.update(zip(place.slots.tolist(), (int(token) for token in tokens), strict=True))
        held = range(self.slice.first, self.slice.end + self.slice.is_last)
        taps = [tap for tap in job.taps if tap in held]
        where = list(zip(place.positions.tolist(), tokens, strict=True))
        features = tuple(column(feature(tap, *row) for row in where) for tap in taps)
        if not self.slice.is_last:
            return ComputedSegment(column(tokens), features=features)
        picks = []
        for row in job.pick_rows:
            seen = place.tail[row].nonzero()[0]
            below = sorted((place.slot_positions[at], cache[place.base + int(at)]) for at in seen)
            path = [*((at, cache[at]) for at in range(place.base)), *below]
            picks.append(fakes.target(token for _, token in path))
        return ComputedSegment(picks=tuple(picks), features=features)


def feature(tap: int, position: int, token: float) -> float:
    """What a stage gives for a tap: tells all three, as long as the token has one digit."""
    return 10_000 * tap + 10 * position + token


def column(rows: Iterable[float]) -> Tensor:
    """A tensor [rows, 1]."""
    data = [struct.pack("<f", row) for row in rows]
    return Tensor("float32", (len(data), 1), b"".join(data))


def values(tensor: Tensor) -> list[float]:
    """Of a tensor [rows, 1]."""
    return list(struct.unpack(f"<{tensor.shape[0]}f", tensor.data))


def card(stage: int, stages: int) -> Card:
    """The holder's card (stage 0), or that of the one layer of a stage."""
    first, end = (stage - 1, stage) if stage else (0, 0)
    return Card(stage, f"oak{stage}", "0.1", first, end, stages, 1, "m", "float32", "none", 0)


@dataclass
class Seat:
    """Where a node is, or was."""

    stage: FakeStage
    node: StageNode
    task: "asyncio.Task[None]"
    worker: Worker
    said: list[str] = field(default_factory=list)


class Ring:
    """Nodes that may be started, ended and killed one by one."""

    def __init__(self, stages: int) -> None:
        self.stages = stages
        self.ports = free_ports(stages + 1)
        self.seats: dict[int, Seat] = {}
        self.said: list[str] = []  # by the holder

    def address(self, stage: int) -> Address:
        return Address("127.0.0.1", self.ports[stage % (self.stages + 1)])

    def start(
        self,
        number: int,
        shown: Card | None = None,
        *,
        seat: int | None = None,
        listen_at: Address | None = None,
        **options: Any,
    ) -> Seat:
        """`shown`: another card than the stage should have. `seat`, `listen_at`: a place of its
        own, for a second one of a number. `options` of a `StageNode`."""
        stage = FakeStage(number, self.stages)
        worker, said = Worker("stage"), list[str]()
        node = StageNode(
            stage,
            shown or card(number, self.stages),
            worker,
            Trace(),
            listen_at=listen_at or self.address(number),
            peer=self.address(number + 1),
            patience=20.0,
            say=said.append,
            **options,
        )
        at = number if seat is None else seat
        self.seats[at] = Seat(stage, node, asyncio.create_task(node.run()), worker, said)
        return self.seats[at]

    async def end(self, number: int) -> None:
        """Politely."""
        seat = self.seats.pop(number)
        seat.task.cancel()
        await asyncio.wait([seat.task])
        seat.worker.close()

    async def kill(self, number: int) -> None:
        """As kill -9 does: the connections just close."""
        seat = self.seats[number]
        for link in (seat.node.upstream, seat.node.downstream):
            if link is not None:
                await link.abort("killed")
        await self.end(number)

    def holder(self, **options: Any) -> Holder:
        defaults: dict[str, Any] = {
            "listen_at": self.address(0),
            "peer": self.address(1),
            "patience": 20.0,
            "patience_lost": 0.0,
            "say": self.said.append,
        }
        drafters = options.pop("drafters", [NGram()])
        return Holder(card(0, self.stages), drafters, Trace(), **(defaults | options))

    def quiet(self) -> bool:
        """Whether no stage holds anything of any request."""
        return not any(
            seat.node.scheduler.requests or seat.node.scheduler.waiting
            for seat in self.seats.values()
        )


@contextlib.asynccontextmanager
async def ring(stages: int, *, start: bool = True) -> AsyncIterator[Ring]:
    """A ring with this number of stages; all that is left of it is ended."""
    made = Ring(stages)
    try:
        for number in range(1, stages + 1) if start else ():
            made.start(number)
        yield made
    finally:
        for number in list(made.seats):
            await made.end(number)


@contextlib.asynccontextmanager
async def holding(made: Ring, **options: Any) -> AsyncIterator[Holder]:
    """A holder whose ring stands. It keeps nothing of a request unless it is told to `keep`."""
    holder = made.holder(**{"keep": False, **options})
    try:
        await holder.connect()
        yield holder
    finally:
        await holder.close()


def limits(new_tokens: int = 24) -> Limits:
    return Limits(new_tokens, CONTEXT)


def truth(new_tokens: int = 24, prompt: Sequence[int] = PROMPT) -> list[int]:
    """What the target alone writes."""
    return fakes.plain(prompt, limits(new_tokens))[0]


async def write(
    holder: Holder,
    new_tokens: int = 24,
    *,
    policy: str = "gardener",
    prompt: Sequence[int] = PROMPT,
    each: Callable[[list[int]], Awaitable[None]] | None = None,
) -> list[int]:
    """One request; `each` is awaited with the text so far whenever there is more of it."""
    text: list[int] = []
    sizes = Bounds(rows=4, window=max(len(holder.cards), 1), floor=0.05)
    async for piece in holder.open(prompt, make(policy, sizes), limits(new_tokens), chunk=3):
        text += piece.tokens
        if each is not None:
            await each(text)
    return text


async def until(ready: Callable[[], object]) -> None:
    """Wait for something that comes about by itself; the scenario has a deadline."""
    while not ready():  # noqa: ASYNC110 - what comes about sets no event
        await asyncio.sleep(0.005)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario to its end; fails if it leaves a task or an unreported error behind."""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(30):
            await scenario()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    uvloop.run(main())
    assert complaints == []


def slow(seconds: float) -> Callable[[], None]:
    """A stage's trouble: it takes its time. Runs on the worker thread."""
    return lambda: time.sleep(seconds)


class Ear:
    """The other end of a link, which only listens."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.errors: list[GardenerError] = []
        self.links: list[Link] = []

    def heard(self, link: Link, message: Message) -> None:
        self.messages.append(message)

    def lost(self, link: Link, error: GardenerError) -> None:
        self.errors.append(error)

    def of(self, *kinds: type[Message]) -> list[Message]:
        return [message for message in self.messages if isinstance(message, kinds)]
