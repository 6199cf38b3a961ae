"""A session of a real ring, and what it does when something in this process goes wrong."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import loopback
import pytest
from loopback import card, holding, limits, ring, run, truth, until, write

from gardener.decoding.costs import Costs
from gardener.decoding.dispatch import Dispatch
from gardener.decoding.events import Command, Event
from gardener.decoding.limits import Limits
from gardener.decoding.policy import Bounds, make
from gardener.decoding.round import Round
from gardener.decoding.speculation import Speculation
from gardener.decoding.tree import Guess, Node
from gardener.errors import LocalError, RemoteError, UserError
from gardener.holder.drafters import Drafters
from gardener.holder.holder import Holder
from gardener.holder.piece import Piece
from gardener.holder.session import Session
from gardener.holder.text import TextStream
from gardener.protocol.features import NO_FEATURES
from gardener.protocol.logprobs import TokenLogprobs, packed
from gardener.protocol.messages import Card, Message, Verdict
from gardener.protocol.tensors import Tensor
from gardener.runtime.trace import Trace

TOKENS = 24


@dataclass
class Broken:
    """Fails once: at the `call`th call of the method named, if there is one."""

    method: str
    call: int
    instant: bool
    name: str = "broken"
    numbers: str = ""
    taps: tuple[int, ...] = ()
    calls: dict[str, int] = field(default_factory=dict)

    def count(self, method: str) -> None:
        self.calls[method] = self.calls.get(method, 0) + 1
        if (method, self.calls[method]) == (self.method, self.call):
            raise ZeroDivisionError("odd")

    def open(self, prompt: Sequence[int], *_: Any, **source: Any) -> "Broken":
        self.count("open")
        return self

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        self.count("settle")

    def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        self.count("expand")
        return [() for _ in paths]


def begin(holder: Holder, new_tokens: int = TOKENS, text: Any = None) -> Session:
    policy = make("gardener", Bounds(rows=4, window=2, floor=0.05))
    given = limits(new_tokens)
    if text is not None:
        given = replace(given, ends=text.push)
    return holder.open(loopback.PROMPT, policy, given, 3, cast(TextStream, text))


async def tokens(session: Session) -> list[int]:
    return [token async for piece in session for token in piece.tokens]


@pytest.mark.parametrize("instant", [True, False])
@pytest.mark.parametrize(("method", "call"), [("open", 1), ("settle", 1), ("settle", 9)])
def test_a_drafter_that_fails_anywhere_ends_its_request_and_nothing_else(
    method: str, call: int, instant: bool
) -> None:
    async def scenario() -> None:
        drafters = [Broken(method, call, instant)]
        async with ring(2) as made, holding(made, drafters=drafters) as holder:
            with pytest.raises(LocalError, match=r"drafter broken failed with ZeroDivisionError"):
                await write(holder, 200)
            assert holder.session is not None
            assert holder.session.finish_reason == "failed"
            assert holder.stands
            assert await write(holder) == truth()
            await until(made.quiet)

    run(scenario)


def test_a_drafter_that_fails_after_the_last_token_spoils_nothing() -> None:
    async def scenario() -> None:
        counting = Broken("", 0, instant=True)
        async with ring(2) as made, holding(made, drafters=[counting]) as holder:
            assert await write(holder) == truth()
        # A miss at every token: one call for each, and the last one comes after the answer.
        async with ring(2) as made:
            drafters = [Broken("settle", counting.calls["settle"], instant=True)]
            async with holding(made, drafters=drafters) as holder:
                assert await write(holder) == truth()
                assert await write(holder) == truth(), "nor is the next request hurt"
                await until(made.quiet)

    run(scenario)


@pytest.mark.parametrize("at", [1, TOKENS])
def test_a_text_that_cannot_be_made_ends_the_request_with_what_came_before(at: int) -> None:
    class Stumbling:
        pushed = 0

        def push(self, token: int) -> bool:
            self.pushed += 1
            if self.pushed == at:
                raise ValueError("no such token")
            return False

        def take(self, final: bool = False) -> str:
            return ""

    async def scenario() -> None:
        async with ring(2) as made, holding(made, drafters=[]) as holder:
            session = begin(holder, text=Stumbling())
            with pytest.raises(LocalError, match="ValueError at the holder: no such token"):
                await tokens(session)
            assert await write(holder) == truth()
            await until(made.quiet)

    run(scenario)


def test_a_request_that_cannot_begin_does_not_end_the_one_that_runs() -> None:
    async def scenario() -> None:
        async with ring(1) as made, holding(made) as holder:
            running = begin(holder)
            with pytest.raises(ValueError, match="leaves no room"):
                holder.open((), make("plain", Bounds()), limits())
            assert await tokens(running) == truth()
            assert running.finish_reason == "length"

    run(scenario)


def test_a_session_that_is_left_early_is_closed_and_another_close_changes_nothing() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            async with begin(holder, 400) as session:
                async for _ in session:
                    break
            assert session.finish_reason == "abandoned"
            session.close()
            await asyncio.wait_for(tokens(session), 5.0)  # what had come, then the end
            await until(made.quiet)
            assert await write(holder) == truth()

    run(scenario)


def test_a_holder_that_was_closed_takes_no_request() -> None:
    async def scenario() -> None:
        async with ring(1) as made:
            async with holding(made) as holder:
                assert await write(holder) == truth()
            with pytest.raises(UserError, match="this ring was closed: open another one"):
                begin(holder)

    run(scenario)


@dataclass
class Owner:
    """Stands for a holder of whose ring the test itself tells."""

    sent: list[Message] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)
    before: int = 0
    stands: bool = True
    cards: tuple[Card, ...] = (card(1, 1),)
    dispatch: Dispatch = field(default_factory=lambda: Dispatch(Costs.flat(1)))

    @property
    def oldest(self) -> float | None:
        return None

    def start(self, round_: Round) -> list[Command]:
        return self.dispatch.start(round_, 0.0)

    def handle(self, round_: Round, event: Event) -> list[Command]:
        return self.dispatch.handle(round_, event, 0.0)

    def depart(self) -> None:
        """The test does that."""

    def ended(self, session: Session) -> None:
        """Nothing is to be done."""

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def leave(self, session: Session) -> None:
        while left := self.dispatch.departures(0.0):
            for departure in left:
                session.depart(departure)

    def stalled(self) -> None:
        raise AssertionError("it takes no time")


def alone(owner: Owner, logprobs: int | None, new_tokens: int) -> Session:
    """A session of a plain request, whose root is under way as segment 0."""
    limits = Limits(new_tokens, 100)
    plain = make("plain", Bounds())
    speculation = Speculation(1, (1,), plain, limits, sources=(), logprobs=logprobs)
    session = Session(owner, Round(speculation, Costs.flat(1)), Drafters(()), None, 5.0, 1)
    session.begin()
    owner.leave(session)
    return session


def verdict(seq: int, pick: int, told: TokenLogprobs | None) -> Verdict:
    logprobs, likeliest = (None, b"") if told is None else packed([told])
    return Verdict(1, seq, (seq,), (pick,), (), (), logprobs, likeliest)


def test_each_piece_brings_the_log_probabilities_of_its_tokens() -> None:
    first = TokenLogprobs(-0.5, ((7, -0.5), (8, -1.5)))
    second = TokenLogprobs(-2.0, ((8, -0.25), (9, -2.0)))

    async def scenario() -> None:
        owner = Owner()
        session = alone(owner, 2, new_tokens=2)
        session.judged(verdict(0, 7, first), NO_FEATURES)
        owner.leave(session)
        session.judged(verdict(1, 9, second), NO_FEATURES)
        assert [piece async for piece in session] == [
            Piece((7,), "", (first,)),
            Piece((9,), "", (second,)),
        ]
        silent = alone(Owner(), None, new_tokens=1)
        silent.judged(verdict(0, 7, None), NO_FEATURES)
        assert [piece async for piece in silent] == [Piece((7,))]

    run(scenario)


@pytest.mark.parametrize(
    ("asked", "came"),
    [(None, TokenLogprobs(-1.0)), (0, None), (0, TokenLogprobs(-1.0, ((3, -1.0),)))],
)
def test_log_probabilities_that_were_not_asked_for_or_do_not_come_are_refused(
    asked: int | None, came: TokenLogprobs | None
) -> None:
    async def scenario() -> None:
        session = alone(Owner(), asked, new_tokens=2)
        with pytest.raises(RemoteError, match="segment 0 came back with log probabilities"):
            session.judged(verdict(0, 7, came), NO_FEATURES)

    run(scenario)


def test_a_session_reads_as_one_text() -> None:
    class Letters:
        ready = ""

        def push(self, token: int) -> bool:
            self.ready += "abcde"[token]
            return False

        def take(self, final: bool = False) -> str:
            text, self.ready = self.ready, "." if final else ""
            return text + self.ready

    async def scenario() -> None:
        async with ring(1) as made, holding(made) as holder:
            written = "".join("abcde"[token] for token in truth())
            assert (await begin(holder, text=Letters()).read()) == written + "."

    run(scenario)
