"""A target, drafters and a ring that need neither torch nor sockets.

The fake target is a pure function of all tokens up to a row, so a row that sees a wrong ancestor,
a sibling or nothing at all gets a different pick. The ring moves messages one step at a time in an
order that a random generator chooses; every stage keeps the rows it holds by the same rule as a
real one (`life.descendants`). Where a request asks for noise, the fake target picks with some that
depends on seed, position and token, as a real one does.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec

from gardener.decoding.costs import Costs
from gardener.decoding.dispatch import Dispatch
from gardener.decoding.events import Command, Emit, Event, Finish, Grow, Grown, Judged, Send
from gardener.decoding.limits import Limits
from gardener.decoding.payoff import Payoff
from gardener.decoding.policy import Policy
from gardener.decoding.round import Round
from gardener.decoding.speculation import Speculation
from gardener.decoding.stage_times import StageTimes
from gardener.decoding.tree import Guess
from gardener.protocol.life import descendants
from gardener.protocol.logprobs import TokenLogprobs, brought, packed
from gardener.protocol.messages import Advance, Close, Message, Open, Segment, Verdict
from gardener.protocol.sampling import GREEDY, Sampling

VOCABULARY = 5


def state(tokens: Iterable[int]) -> int:
    """Below 1009, and another one for almost any other tokens."""
    found = 7
    for token in tokens:
        found = (found * 31 + token + 1) % 1009
    return found


def target(tokens: Iterable[int]) -> int:
    """The token that the fake target finds the likeliest after these."""
    return state(tokens) % VOCABULARY


@cache
def noise(seed: int, position: int, token: int) -> float:
    """A draw of Gumbel's law."""
    return -math.log(-math.log(random.Random(f"{seed} {position} {token}").uniform(1e-9, 1.0)))


def pick(tokens: Sequence[int], sampling: Sampling = GREEDY) -> int:
    """The token that the fake target writes after these: each step away from the likeliest one
    takes 1 from the logit."""
    likeliest = target(tokens)
    if sampling.is_greedy:
        return likeliest
    assert sampling.seed is not None
    scores = [
        -((token - likeliest) % VOCABULARY) / sampling.temperature
        + noise(sampling.seed, len(tokens), token)
        for token in range(VOCABULARY)
    ]
    return scores.index(max(scores))


def told(tokens: Sequence[int], picked: int, best: int) -> TokenLogprobs:
    """What the fake target says of its pick after these: no law, but it tells one row from another,
    and one token."""
    level = state(tokens)
    ranked = [(level + step) % VOCABULARY for step in range(VOCABULARY)]
    logs = {token: -float(level + step) for step, token in enumerate(ranked)}
    return TokenLogprobs(logs[picked], tuple((token, logs[token]) for token in ranked[:best]))


def plain(
    prompt: Sequence[int], limits: Limits, sampling: Sampling = GREEDY
) -> tuple[list[int], str]:
    """What the target alone writes, and why it ends."""
    text = list(prompt)
    while True:
        text.append(pick(text, sampling))
        if text[-1] in limits.eos:
            return text[len(prompt) :], "eos"
        if len(text) - len(prompt) == limits.new_tokens:
            return text[len(prompt) :], "length"
        if len(text) == limits.context:
            return text[len(prompt) :], "context"


class Alone:
    """A request that has a ring for itself: what is told leads to what leaves, as at a holder."""

    def __init__(
        self, speculation: Speculation, costs: Costs, payoff: Payoff | None = None
    ) -> None:
        self.dispatch = Dispatch(costs, payoff)
        self.round = Round(speculation, costs)
        self.speculation = speculation

    @property
    def wake(self) -> float | None:
        return self.dispatch.wake

    @property
    def costs(self) -> Costs:
        return self.round.costs

    @property
    def stage_times(self) -> StageTimes:
        return self.round.stage_times

    def start(self, now: float) -> list[Command]:
        return self._and_depart(self.dispatch.start(self.round, now), now)

    def handle(self, event: Event, now: float) -> list[Command]:
        return self._and_depart(self.dispatch.handle(self.round, event, now), now)

    def wait(self, now: float) -> list[Command]:
        """The time has come at which it wanted to be woken, or another one."""
        return self._and_depart([], now)

    def _and_depart(self, commands: list[Command], now: float) -> list[Command]:
        while left := self.dispatch.departures(now):
            for departure in left:
                if departure.error is not None:
                    raise departure.error
                commands += departure.commands
        return commands


@dataclass
class FakeStage:
    """Keeps rows as a stage does, and their whole token path in place of keys and values. `texts`:
    the tokens that it keeps of other requests. `target` picks the token after a path; None: the
    fake target, as the request wants it."""

    texts: Mapping[int, Sequence[int]] = field(default_factory=dict)
    opened: Open = field(default_factory=lambda: Open(0, 1, 1))
    target: Callable[[tuple[int, ...]], int] | None = None
    prompt: int = 0
    root: int = -1
    paths: dict[int, tuple[int, ...]] = field(default_factory=dict)  # every living row
    parents: dict[int, int] = field(default_factory=dict)  # of rows that are not sure yet

    def hear(self, message: Open | Advance) -> None:
        if isinstance(message, Open):
            self.opened = message
            self.prompt, self.root = message.prompt, message.prompt - 1
            if message.prefix is not None:
                other, rows = message.prefix
                self.paths = {row: tuple(self.texts[other][: row + 1]) for row in range(rows)}
            return
        sure = {*message.settled, message.root}
        self.root = message.root
        for node in sure & self.parents.keys():
            del self.parents[node]
        for node in self.parents.keys() - descendants(self.root, self.parents.items()):
            del self.parents[node], self.paths[node]

    def take(self, segment: Segment) -> Segment:
        """Keep the rows that live, drop the rest from the segment."""
        kept = []
        rows = zip(segment.ids, segment.parents, segment.positions, segment.tokens, strict=True)
        for at, (node, parent, position, token) in enumerate(rows):
            sure = node < self.prompt or node == self.root
            if not (sure or parent == self.root or parent in self.parents):
                continue
            assert node not in self.paths, "a row came twice"
            above = () if parent < 0 else self.paths[parent]
            assert len(above) == position, "a wrong position, or an ancestor is missing"
            self.paths[node] = (*above, token)
            if not sure:
                self.parents[node] = parent
            kept.append(at)
        if len(kept) == len(segment.ids):
            return segment
        return msgspec.structs.replace(
            segment,
            ids=tuple(segment.ids[at] for at in kept),
            parents=tuple(segment.parents[at] for at in kept),
            positions=tuple(segment.positions[at] for at in kept),
            tokens=tuple(segment.tokens[at] for at in kept),
        )

    def judge(self, segment: Segment) -> Verdict:
        rows = [n for n in segment.ids if n >= self.prompt - 1]
        picks = tuple(self.pick(self.paths[n]) for n in rows)
        verdict = Verdict(segment.request, segment.seq, tuple(rows), picks, ())
        best = self.opened.logprobs
        if best is None or not rows:
            return verdict
        said = [told(self.paths[n], p, best) for n, p in zip(rows, picks, strict=True)]
        logprobs, likeliest = packed(said)
        return msgspec.structs.replace(verdict, logprobs=logprobs, likeliest=likeliest)

    def pick(self, path: tuple[int, ...]) -> int:
        return self.target(path) if self.target else pick(path, self.opened.sampling)


Drafts = Callable[[Sequence[int]], tuple[Guess, ...]]
"""The children that a fake drafter proposes below a token path."""


@dataclass(frozen=True)
class Sending:
    """A segment that left. `rows` are those of the tree, `root` was the root then and had not been
    sent before if `urgent`; `flying` segments with tree rows were under way, this one among them,
    and `window` was the most that might be.
    """

    rows: tuple[int, ...]
    root: int
    urgent: bool
    flying: int
    window: int


class Moody(Payoff):
    """Guesses are worth their time, or not, from one moment to the next."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(1.0)
        self._chance = chance

    @property
    def speculating(self) -> bool:
        return self._chance.random() < 0.9

    @speculating.setter
    def speculating(self, value: bool) -> None:
        """It does not care."""


@dataclass
class FakeRing:
    """Drives a `Round` through stages with random delays. `step` does one thing."""

    round: Alone
    drafts: Drafts
    chance: random.Random
    stages: int = 3
    overtake: float = 0.5  # how often an Advance jumps the queue of a link
    free: tuple[bool, ...] = (True,)  # which drafters answer at once
    stuck: frozenset[int] = frozenset()  # drafters that never answer
    moody: bool = False  # time passes between any two things that happen
    texts: Mapping[int, Sequence[int]] = field(default_factory=dict)  # that the stages keep
    target: Callable[[tuple[int, ...]], int] | None = None
    now: float = 0.0
    emitted: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    reason: str | None = None
    broken: int | None = None  # the layer because of which it failed
    sent: list[Message] = field(default_factory=list)
    asked: list[Grow] = field(default_factory=list)  # not yet answered
    sendings: list[Sending] = field(default_factory=list)
    withheld: int = 0  # how often a root was not sent though its patience was over

    def __post_init__(self) -> None:
        self.members = [FakeStage(self.texts, target=self.target) for _ in range(self.stages)]
        self.links: list[deque[Open | Advance | Close | Segment]] = [
            deque() for _ in range(self.stages)
        ]
        self.verdicts: deque[Verdict] = deque()
        self.out: set[int] = set()  # all rows of the tree that were sent
        self.run(self.round.start(self.now))

    @property
    def speculation(self) -> Speculation:
        return self.round.speculation

    def run(self, commands: Sequence[Command]) -> None:
        left = deque(commands)
        while left:
            left.extend(self.carry_out(left.popleft()))

    def carry_out(self, command: Command) -> list[Command]:
        """Returns what follows at once."""
        match command:
            case Emit(tokens):
                self.emitted += tokens
                self.logprobs += command.logprobs
            case Finish(reason, broken):
                self.broken = broken
                assert self.reason is None, "finished twice"
                self.reason = reason
            case Grow(source=source):
                assert all(grow.source != source for grow in self.asked), "asked twice"
                self.asked.append(command)
                return self.draft(command) if self.free[source] else []
            case Send(message):
                if isinstance(message, Segment):
                    self.sendings.append(self.sending(message))
                self.sent.append(message)
                self.pass_on(0, message)
        return []

    def sending(self, segment: Segment) -> Sending:
        speculation = self.speculation
        root = speculation.tree.root
        rows = tuple(node for node in segment.ids if node >= len(speculation.prompt) - 1)
        flights, urgent = speculation.flights, root not in self.out
        self.out.update(rows)
        return Sending(
            rows,
            root,
            urgent,
            flying=sum(1 for each in flights if each.tree_rows and each.seq <= segment.seq),
            window=speculation.policy.window(self.round.costs),
        )

    def pass_on(self, link: int, message: Open | Advance | Close | Segment) -> None:
        queue = self.links[link]
        queue.append(message)
        if isinstance(message, Advance) and self.chance.random() < self.overtake:
            # Forwarded at once by every stage: it may pass segments, never an Open or Advance.
            at = len(queue) - 1
            while at and isinstance(queue[at - 1], Segment):
                queue[at], queue[at - 1] = queue[at - 1], queue[at]
                at -= 1

    def draft(self, grow: Grow) -> list[Command]:
        self.asked.remove(grow)
        tree, prefix = self.speculation.tree, self.speculation.prompt
        text = [*prefix, *self.emitted]
        children = tuple(
            (node, self.drafts([*text, *(n.token for n in tree.lineage(node)[1:])]))
            for node in grow.nodes
            if node in tree
        )
        return self.round.handle(Grown(children, grow.source), self.now)

    def deliver(self, link: int) -> None:
        message = self.links[link].popleft()
        stage = self.members[link]
        last = link == self.stages - 1
        if isinstance(message, Segment):
            segment = stage.take(message)
            if last:
                self.verdicts.append(stage.judge(segment))
            else:
                self.pass_on(link + 1, segment)
            return
        if not isinstance(message, Close):
            stage.hear(message)
        if not last:
            self.pass_on(link + 1, message)

    def judge(self) -> None:
        verdict = self.verdicts.popleft()
        logprobs = brought(verdict, self.speculation.logprobs)
        self.run(self.round.handle(Judged(verdict, logprobs=logprobs), self.now))

    def choices(self) -> list[int | Grow]:
        """What can be done: a link delivers, the newest verdict is judged (the link behind the last
        stage), a drafter answers."""
        doable: list[int | Grow] = [link for link, queue in enumerate(self.links) if queue]
        if self.verdicts:
            doable.append(self.stages)
        doable += [grow for grow in self.asked if grow.source not in self.stuck]
        return doable

    def do(self, choice: int | Grow) -> None:
        if isinstance(choice, Grow):
            self.run(self.draft(choice))
        elif choice == self.stages:
            self.judge()
        else:
            self.deliver(choice)

    def wake(self) -> None:
        """The time has come that the round has asked for."""
        assert self.round.wake is not None
        self.now = max(self.now, self.round.wake)
        waits = self.speculation.urgent and self.prefilled
        commands = self.round.wait(self.now)
        self.withheld += waits and not commands
        self.run(commands)

    @property
    def prefilled(self) -> bool:
        """All of the prompt but its last token has left, or is kept."""
        prompt, prefix = len(self.speculation.prompt), self.speculation.prefix
        kept = prefix[1] if prefix else 0
        return kept == prompt - 1 or any(prompt - 2 in each.ids for each in self.segments())

    def segments(self) -> list[Segment]:
        """All that were sent."""
        return [message for message in self.sent if isinstance(message, Segment)]

    def step(self) -> bool:
        """Do one thing that can be done; false when there is nothing left to do."""
        if self.moody:
            self.now += self.chance.choice([0.0, 1e-4, 0.003, 0.01, 0.05])
        wake = self.round.wake
        if wake is not None and wake <= self.now:
            self.wake()
        elif doable := self.choices():
            self.do(self.chance.choice(doable))
        elif wake is not None:
            self.wake()
        else:
            return False
        return True

    def finish(self, most: int = 20_000) -> None:
        """Run until everything is still."""
        for _ in range(most):
            if not self.step():
                return
        raise AssertionError(f"not finished after {most} steps")


def decode(
    prompt: Sequence[int],
    policy: Policy,
    limits: Limits,
    drafts: Drafts,
    chance: random.Random,
    stages: int = 3,
    overtake: float = 0.5,
    free: tuple[bool, ...] = (True,),
    chunk: int = 4,
    costs: Costs | None = None,
    stuck: frozenset[int] = frozenset(),
    moody: bool = False,
    target: Callable[[tuple[int, ...]], int] | None = None,
    **opened: Any,
) -> FakeRing:
    """One request on a fake ring, run to its end. `opened`: `sampling`, `logprobs` and `prefix` of
    its speculation; the other request of a prefix began with the same tokens, and went on."""
    again = tuple(not at_once for at_once in free)
    speculation = Speculation(1, prompt, policy, limits, chunk, again, instant=free, **opened)
    prefix = speculation.prefix
    texts = {prefix[0]: [*prompt[: prefix[1]], VOCABULARY]} if prefix else {}
    payoff = Moody(chance) if moody else Payoff(math.inf)
    made = Alone(speculation, costs or Costs.flat(stages), payoff)
    ring = FakeRing(made, drafts, chance, stages, overtake, free, stuck, moody, texts, target)
    ring.finish()
    return ring
