"""The holder with real nodes: what it writes, and what it says when something breaks."""

import asyncio
from collections.abc import Sequence
from typing import Any

import fakes
import loopback
import msgspec
import pytest
from loopback import feature, holding, limits, ring, run, slow, truth, until, values, write
from processes import free_ports

from gardener.decoding.costs import GUESS, Costs
from gardener.decoding.policy import Bounds, make
from gardener.decoding.tree import Guess, Node
from gardener.draft.ngram import NGram
from gardener.errors import LocalError, PeerLost, StageFailed, UserError
from gardener.holder.holder import Holder
from gardener.net.address import Address
from gardener.protocol import messages as m
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.protocol.tensors import Tensor


@pytest.mark.parametrize("policy", ["plain", "serial", "gardener"])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_the_text_is_that_of_the_target_alone(stages: int, policy: str) -> None:
    async def scenario() -> None:
        async with ring(stages) as made, holding(made) as holder:
            assert await write(holder, 60, policy=policy) == truth(60)
            assert holder.session is not None
            assert holder.session.finish_reason == "length"
            await until(made.quiet)

    run(scenario)


def test_nodes_and_holder_start_in_any_order() -> None:
    async def scenario() -> None:
        async with ring(3, start=False) as made:
            for number in (3, 1):
                made.start(number)
            holder = made.holder()
            connecting = asyncio.create_task(holder.connect())
            await until(lambda: any("stage 1 is waiting for stage 2" in s for s in made.said))
            made.start(2)
            assert [card.stage for card in await connecting] == [1, 2, 3]
            assert await write(holder) == truth()
            await holder.close()

    run(scenario)


def test_a_ring_may_stand_before_its_drafters_are_loaded() -> None:
    class Wanting(NGram):
        name = "wanting"
        taps = (1,)

    async def scenario() -> None:
        async with ring(2) as made, holding(made, drafters=[]) as holder:
            assert holder.drafters.names == "none"
            holder.equip([Wanting()])
            assert await write(holder, 40) == truth(40)
            assert holder.session is not None
            assert holder.session.speculation.counts.accepted > 0
            assert holder.session.speculation.taps == (1,)

    run(scenario)


def test_one_request_after_another_and_one_holder_after_another() -> None:
    async def scenario() -> None:
        async with ring(2) as made:
            for _ in range(2):
                async with holding(made) as holder:
                    for _ in range(2):
                        assert await write(holder) == truth()

    run(scenario)


# --- what things take ----------------------------------------------------------------------------


def test_the_survey_brings_what_stages_and_links_take() -> None:
    async def scenario() -> None:
        async with ring(2, start=False) as made:
            for number in (1, 2):
                costs = ((1, 1000 * number), (16, 2000 * number))
                made.start(number, msgspec.structs.replace(loopback.card(number, 2), costs=costs))
            holder = made.holder()
            assert holder.costs.stages == Costs.flat(1).stages
            await holder.connect()
            assert [curve(16) for curve in holder.costs.stages] == [0.002, 0.004]
            assert len(holder.costs.hops) == 3
            assert all(hop.delay > 0 for hop in holder.costs.hops)
            await holder.close()

    run(scenario)


def test_what_is_seen_keeps_the_costs_current() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            made.seats[2].stage.trouble = slow(0.02)
            await write(holder, 40, policy="plain")
            first, second = holder.costs.stages
            assert first(1) != GUESS  # the cards said nothing, so what is seen is all there is
            assert second(1) > 0.0199
            assert holder.costs.tick(1) == max(first(1), second(1))
            assert holder.costs.round_trip(1) >= first(1) + second(1)
            assert holder.session is not None
            assert holder.session.round.costs.context == len(loopback.PROMPT) + 39
            assert holder.costs.draft(1) == 0.0  # the n-gram drafter does not count

    run(scenario)


def test_what_a_slow_drafter_takes_is_seen() -> None:
    class Slow(NGram):
        name = "slow"
        instant = False

    async def scenario() -> None:
        async with ring(1) as made, holding(made, drafters=[Slow()]) as holder:
            await write(holder, 40)
            assert holder.costs.draft(1) > 0.0

    run(scenario)


# --- a stage is lost -----------------------------------------------------------------------------


def going_on(news: list[str]) -> dict[str, object]:
    """Options of a holder that waits for its ring."""
    return {"patience_lost": 9.0, "news": news.append}


@pytest.mark.parametrize("victim", [1, 2, 3])
def test_a_stage_lost_in_the_middle(victim: int) -> None:
    async def scenario() -> None:
        async with ring(3) as made:
            others = [seat.node for number, seat in made.seats.items() if number != victim]
            for seat in made.seats.values():
                seat.stage.trouble = slow(0.005)
            text: list[int] = []

            async def kill(so_far: list[int]) -> None:
                text[:] = so_far
                if len(so_far) >= 10 and victim in made.seats:
                    await made.kill(victim)

            async with holding(made) as holder:
                with pytest.raises(PeerLost) as caught:
                    await write(holder, 400, each=kill)
                said = str(caught.value)
                at = made.address(victim)
                assert said.startswith(f"stage {victim} at {at} was lost while it ")
                assert f"start stage {victim} again, then repeat the request" in said
                assert f"; {len(text)} tokens were written; " in said
                assert text == truth(400)[: len(text)]
                with pytest.raises(PeerLost) as again:  # at once, and of nobody else's answer
                    await asyncio.wait_for(write(holder), 1)
                assert str(again.value) == said.replace(f"{len(text)} tokens were written; ", "")
            await until(made.quiet)
            made.start(victim)
            async with holding(made) as holder:
                assert await write(holder) == truth()
            assert others == [s.node for n, s in made.seats.items() if n != victim]

    run(scenario)


def test_a_stage_that_ends_says_so() -> None:
    async def scenario() -> None:
        async with ring(3) as made, holding(made) as holder:
            await made.end(2)
            await until(lambda: holder.downtime.refusal)
            with pytest.raises(PeerLost, match=r"idle, .* before: it left: stage 2 ends; st"):
                await write(holder)

    run(scenario)


def test_two_stages_lost_at_once() -> None:
    async def scenario() -> None:
        async with ring(3) as made, holding(made) as holder:
            await asyncio.gather(made.kill(1), made.kill(3))
            await until(lambda: holder.downtime.refusal)
            with pytest.raises(
                PeerLost, match=r"stage 1 at .* was lost .*; stage 3 at .* was lost .*start th"
            ):
                await write(holder)

    run(scenario)


def test_a_cut_cable_blames_nobody() -> None:
    async def scenario() -> None:
        news: list[str] = []
        async with ring(3) as made, holding(made, **going_on(news)) as holder:
            link = made.seats[2].node.downstream
            assert link is not None
            assert link._transport is not None
            link._transport.abort()
            await until(lambda: len(news) == 2)
            assert news[0].startswith("stage 2 and stage 3 lost each other")
            assert news[0].endswith("; see to the network between them: up to 9 s are waited")
            assert news[1].startswith("the ring stands again after 0.")
            assert await write(holder) == truth()

    run(scenario)


def test_advice_may_come_from_who_started_the_stages() -> None:
    async def scenario() -> None:
        async with ring(1) as made, holding(made, advise=lambda n: f"mend {n}") as holder:
            await made.kill(1)
            await until(lambda: holder.downtime.refusal)
            with pytest.raises(PeerLost, match=r"; mend 1, then repeat the request$"):
                await write(holder)

    run(scenario)


# --- a request fails, the ring stands ------------------------------------------------------------


@pytest.mark.parametrize("victim", [1, 2, 3])
def test_a_forward_pass_that_fails_ends_the_request_alone(victim: int) -> None:
    def fail() -> None:
        raise RuntimeError("out of\nmemory \x1b[2J")

    async def scenario() -> None:
        async with ring(3) as made, holding(made) as holder:
            stage = made.seats[victim].stage

            async def break_it(so_far: list[int]) -> None:
                if len(so_far) >= 8:
                    stage.trouble = fail

            with pytest.raises(StageFailed) as caught:
                await write(holder, 300, each=break_it)
            said = str(caught.value)
            assert said.startswith(f"stage {victim} could not compute segment ")
            assert "RuntimeError: out of memory ?[2J; " in said
            stage.trouble = lambda: None
            assert await write(holder) == truth()
            await until(made.quiet)
            assert not stage.caches

    run(scenario)


def test_a_cache_that_cannot_be_made_ends_the_request_alone() -> None:
    def fail() -> None:
        raise MemoryError("no room")

    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            made.seats[2].stage.open_trouble = fail
            with pytest.raises(StageFailed, match=r"stage 2 could not compute segment 0.*no room"):
                await write(holder)
            made.seats[2].stage.open_trouble = lambda: None
            assert await write(holder) == truth()

    run(scenario)


@pytest.mark.parametrize("instant", [True, False])
def test_a_drafter_that_fails_blames_no_stage(instant: bool) -> None:
    class Broken:
        name, numbers, context, calls = "broken", "", None, 0
        taps: tuple[int, ...] = ()

        def __init__(self, instant: bool) -> None:
            self.instant = instant

        def open(
            self, prompt: Sequence[int], sampling: Sampling = GREEDY, **source: Any
        ) -> "Broken":
            return self

        def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None: ...
        def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
            self.calls += 1
            if self.calls == 5:
                raise ZeroDivisionError("odd")
            return [() for _ in paths]

    async def scenario() -> None:
        async with ring(2) as made, holding(made, drafters=[Broken(instant)]) as holder:
            with pytest.raises(LocalError, match="ZeroDivisionError at the holder: odd; this is a"):
                await write(holder, 100)
            assert await write(holder) == truth()

    run(scenario)


def test_a_verdict_that_never_comes() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made, stall=0.2) as holder:
            made.seats[2].stage.trouble = slow(1.0)
            with pytest.raises(PeerLost, match=r"no verdict came .* for 0.2 s, .*: segment 0 \("):
                await write(holder)
            with pytest.raises(PeerLost, match="no verdict came"):
                await write(holder)

    run(scenario)


# --- the consumer --------------------------------------------------------------------------------


def test_a_consumer_that_leaves_early() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            policy = make("gardener", Bounds(rows=4, window=2, floor=0.05))
            stream = holder.open(loopback.PROMPT, policy, limits(400))
            async for _ in stream:
                break
            # The one that was left goes on beside the next one, until it is closed.
            assert await write(holder) == truth()
            assert stream.finish_reason is None
            stream.close()
            [piece async for piece in stream]
            assert [piece async for piece in stream if piece.tokens] == []
            assert stream.finish_reason == "abandoned"
            await until(made.quiet)
            assert not any(seat.stage.caches for seat in made.seats.values())

    run(scenario)


def test_a_slow_consumer_holds_nothing_up() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            done: list[str | None] = []

            async def dawdle(so_far: list[int]) -> None:
                if not done:
                    session = holder.session
                    assert session is not None
                    await until(lambda: session.finish_reason)  # while this consumer reads nothing
                    done.append(session.finish_reason)

            assert await write(holder, 60, each=dawdle) == truth(60)
            assert done == ["length"]

    run(scenario)


def test_a_prompt_without_room_is_no_fault_of_the_ring() -> None:
    async def scenario() -> None:
        async with ring(1) as made, holding(made) as holder:
            with pytest.raises(ValueError, match="leaves no room"):
                await write(holder, 5, prompt=range(loopback.CONTEXT))
            assert await write(holder) == truth()

    run(scenario)


# --- connecting ----------------------------------------------------------------------------------


async def refused(holder: Holder) -> str:
    """Why the ring did not close."""
    try:
        with pytest.raises((PeerLost, UserError)) as caught:
            await holder.connect()
        return str(caught.value)
    finally:
        await holder.close()


def test_patience_covers_all_of_connecting() -> None:
    async def scenario() -> None:
        async with ring(3, start=False) as made:
            said = await refused(made.holder(patience=0.1))
            assert said.startswith(
                f"the ring did not close within 0.1 s: waiting for stage 1 at {made.address(1)}: "
                "connection refused, nothing listens there (start it"
            )
            made.start(1)
            made.start(3)
            said = await refused(made.holder(patience=0.5))
            assert said.startswith(
                "the ring did not close within 0.5 s: stage 1 is waiting for stage 2 at "
                f"{made.address(2)}: connection refused"
            )

    run(scenario)


def test_the_last_stage_has_the_wrong_address() -> None:
    async def scenario() -> None:
        async with ring(2) as made:
            here = made.ports[0]
            made.ports[0] = free_ports(1)[0]
            said = await refused(made.holder(patience=0.5))
            assert f"stage 2 is waiting for the holder at 127.0.0.1:{here}: connection ref" in said
            assert said.endswith(
                f"; this holder listens at 127.0.0.1:{made.ports[0]}, --peer of stage 2"
            )

    run(scenario)


@pytest.mark.parametrize(
    ("stage", "change", "said"),
    [
        (1, {"model": "other"}, "hold different models"),
        (2, {"model": "other"}, "hold different models"),
        (2, {"dtype": "bfloat16"}, "stage 1 computes in float32 but stage 2 in bfloat16"),
        (2, {"version": "9"}, "install the same version on both"),
        (2, {"first": 2, "end": 2}, "layer 1 is missing"),
        (2, {"first": 0}, "they overlap"),
        (2, {"stage": 1}, "stage 1 cannot follow stage 1: give stage 1 the address of stage 2"),
        (1, {"stage": 2}, "the holder's --peer must be stage 1, but stage 2 answers there"),
    ],
)
def test_stages_that_do_not_fit(stage: int, change: dict[str, object], said: str) -> None:
    async def scenario() -> None:
        async with ring(3, start=False) as made:
            for number in (1, 2, 3):
                shown = loopback.card(number, 3)
                if number == stage:
                    shown = msgspec.structs.replace(shown, **change)
                made.start(number, shown)
            assert said in await refused(made.holder(patience=0.8))

    run(scenario)


def test_a_second_holder_is_told_to_wait() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made) as holder:
            port = free_ports(1)[0]
            elsewhere = Address("127.0.0.1", port)
            said = await refused(made.holder(patience=0.3, listen_at=elsewhere))
            assert "stage 1 already serves the holder at" in said
            assert "wait until it has ended, or end it" in said
            assert "is in use, for the ring serves somebody else" in await refused(made.holder())
            assert await write(holder) == truth()

    run(scenario)


def test_a_stage_lost_between_dialling_and_the_survey() -> None:
    async def scenario() -> None:
        async with ring(3, start=False) as made:
            made.start(1)
            holder = made.holder()
            connecting = asyncio.create_task(holder.connect())
            await until(lambda: holder.ring.downstream)
            await made.kill(1)
            await until(lambda: holder.ring.downstream is None)
            for number in (1, 2, 3):
                made.start(number)
            assert len(await connecting) == 3
            assert "stage 1 was lost while the ring closed: the connection broke" in made.said
            assert await write(holder) == truth()
            await holder.close()

    run(scenario)


def test_the_survey_of_a_holder_that_is_gone_troubles_nobody() -> None:
    async def scenario() -> None:
        async with ring(2, start=False) as made:
            made.start(1)
            await refused(made.holder(patience=0.2))  # its survey is left with stage 1
            made.start(2)
            async with holding(made) as holder:
                assert holder.ring.upstream is not None
                last = made.seats[2].node.downstream
                assert last is not None
                last.send(m.Survey(bytes(16), ()))  # as if one came late
                assert await write(holder) == truth()

    run(scenario)


def test_what_a_holder_does_not_expect_ends_the_link() -> None:
    async def scenario() -> None:
        news: list[str] = []
        async with ring(1) as made, holding(made, **going_on(news)):
            link = made.seats[1].node.downstream
            assert link is not None
            link.send(m.Open(1, 1, 2))
            await until(lambda: len(news) == 2)
            assert "broke the protocol: the holder has no use for Open" in news[0]

    run(scenario)


# --- features ------------------------------------------------------------------------------------


class Tapper:
    """Guesses right two times out of three, and keeps what the ring gives it."""

    name, numbers, context, instant = "tapper", "", None, False

    def __init__(self, *taps: int) -> None:
        self.taps = taps
        self.draft = self.open(())  # the last one

    def open(
        self, prompt: Sequence[int], sampling: Sampling = GREEDY, **source: Any
    ) -> "TapperDraft":
        self.draft = self.make(prompt)
        return self.draft

    def make(self, prompt: Sequence[int]) -> "TapperDraft":
        return TapperDraft(prompt, len(self.taps))


class TapperDraft:
    def __init__(self, prompt: Sequence[int], taps: int) -> None:
        self.prompt, self.text = len(prompt), list(prompt)
        self.features: list[list[float]] = [[] for _ in range(taps)]  # by tap
        self.late = False  # were features ever due when nodes came?

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        for kept, new in zip(self.features, features, strict=True):
            kept += values(new)
        self.text += [node.token for node in nodes]
        due = len(self.text) - 1 if nodes else self.prompt - 1
        self.late |= any(len(kept) != due if nodes else len(kept) > due for kept in self.features)

    def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        return [self._guess([*self.text, *(node.token for node in path[1:])]) for path in paths]

    def _guess(self, text: Sequence[int]) -> tuple[Guess, ...]:
        right = fakes.target(text)
        others = [(right + step) % fakes.VOCABULARY for step in (1, 2)]
        named = [others[0], right] if len(text) % 3 else others
        return tuple(map(Guess, named, (0.5, 0.4)))


async def told(holder: Holder) -> None:
    """Until the drafters on threads have heard all that was sent to them."""
    for worker in holder.drafters._workers:
        if worker is not None:
            await worker.run(lambda: None)


@pytest.mark.parametrize("policy", ["plain", "serial", "gardener"])
@pytest.mark.parametrize(("stages", "taps"), [(1, (0, 1)), (3, (1, 3)), (3, (0, 1, 2, 3))])
def test_a_drafter_gets_the_features_of_the_text_and_of_nothing_else(
    stages: int, taps: tuple[int, ...], policy: str
) -> None:
    async def scenario() -> None:
        drafter = Tapper(*taps)
        async with ring(stages) as made, holding(made, drafters=[NGram(), drafter]) as holder:
            for prompt in (loopback.PROMPT, (4,), (2, 0, 2)):  # in pieces of three
                written = await write(holder, 40, policy=policy, prompt=prompt)
                assert written == truth(40, prompt)
                await told(holder)
                text = [*prompt, *written]
                assert drafter.draft.text == text
                assert drafter.draft.features == [
                    [feature(tap, *row) for row in enumerate(text[:-1])] for tap in taps
                ]
                assert not drafter.draft.late
                assert holder.session is not None
                counts = holder.session.speculation.counts
                assert counts.missed > 0
                if policy == "serial":  # which waits for its drafters
                    assert counts.accepted > 0
                    assert counts.named[1] > 0
                    assert counts.wasted > 0

    run(scenario)


def test_a_drafter_that_wants_none_is_given_no_features() -> None:
    given: list[Sequence[Tensor]] = []

    class Asking(TapperDraft):
        def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
            assert nodes
            given.append(features)
            super().settle(nodes, features)

    class Asker(Tapper):
        def make(self, prompt: Sequence[int]) -> TapperDraft:
            return Asking(prompt, 0)

    async def scenario() -> None:
        drafter = Asker()
        async with ring(2) as made, holding(made, drafters=[drafter, Tapper(2)]) as holder:
            assert await write(holder) == truth()
            await told(holder)
            assert drafter.draft.text == [*loopback.PROMPT, *truth()]
            assert given
            assert not any(given)

    run(scenario)


def test_a_ring_without_any_drafter_writes_the_same() -> None:
    async def scenario() -> None:
        async with ring(2) as made, holding(made, drafters=[]) as holder:
            for policy in ("plain", "serial", "gardener"):
                assert await write(holder, policy=policy) == truth()

    run(scenario)


def wide(features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(Tensor("float32", (t.shape[0], 2), 2 * t.data) for t in features)


def narrow(features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(Tensor("bfloat16", t.shape, t.data[::2]) for t in features)


def longer(features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """As if a row of the prompt stood before the others."""
    return tuple(Tensor(t.dtype, (t.shape[0] + 1, 1), bytes(4) + t.data) for t in features)


SPOILT = {
    "wide": (wide, r"features \[\(\(\d, 2\), 'float32'\), \(\(\d, 2\), 'float32'\)\]"),
    "other-dtype": (narrow, r"features \[\(.*, 'bfloat16'\), \(.*, 'bfloat16'\)\]"),
    "one-left-out": (lambda features: features[:1], r"features \[\(\(\d, 1\), 'float32'\)\]"),
    "none": (lambda features: (), r"features \[\]"),
    "one-too-many": (lambda features: (*features, features[0]), r"features \[.*, .*, .*\]"),
    "one-row-too-many": (longer, r"features \[.*\]"),
}


@pytest.mark.parametrize(("spoil", "said"), SPOILT.values(), ids=SPOILT)
def test_features_that_were_not_asked_for_end_the_ring_with_a_reason(spoil: Any, said: str) -> None:
    async def scenario() -> None:
        drafter = Tapper(1, 2)
        async with ring(2) as made, holding(made, drafters=[drafter]) as holder:
            node = made.seats[2].node

            def send(message: m.Segment | m.Verdict) -> None:
                if isinstance(message, m.Verdict) and message.seq >= 4 and message.ids:
                    features = spoil(message.features)
                    message = msgspec.structs.replace(message, features=features)
                node._pass_on(message)

            node.scheduler._out = send
            with pytest.raises(PeerLost, match=rf"segment \d+ came back with {said}, asked for"):
                await write(holder, 60)
            await told(holder)
            text = drafter.draft.text
            assert drafter.draft.features == [
                [feature(tap, *row) for row in enumerate(text[:-1])] for tap in (1, 2)
            ]

    run(scenario)


def test_features_that_nobody_wants_end_the_ring_with_a_reason() -> None:
    async def scenario() -> None:
        async with ring(1) as made, holding(made) as holder:
            node = made.seats[1].node

            def send(message: m.Segment | m.Verdict) -> None:
                features = (loopback.column([0.0] * len(message.ids)),)
                node._pass_on(msgspec.structs.replace(message, features=features))

            node.scheduler._out = send
            with pytest.raises(PeerLost, match=r"asked for were taps \(\)"):
                await write(holder)

    run(scenario)
