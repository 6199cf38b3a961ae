"""What a holder learns from verdicts, and what it leaves out: prefill, and the time between two
requests. On a simulated ring, without a socket."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from fakes import target
from simulated import CONTEXT, PROMPT, TOKENS, with_ring, write, written

from gardener.decoding.limits import Limits
from gardener.decoding.policy import Bounds, make
from gardener.decoding.tree import Guess, Node
from gardener.holder.holder import Holder
from gardener.protocol.messages import Verdict
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.protocol.tensors import Tensor
from gardener.rings.simulate.ring import SimulatedRing


class Oracle:
    """A drafter that answers at once and knows the text."""

    name = "oracle"
    numbers = ""
    instant = True
    context = None
    taps: tuple[int, ...] = ()

    def open(
        self, prompt: Sequence[int], sampling: Sampling = GREEDY, **source: Any
    ) -> "OracleDraft":
        return OracleDraft(prompt)


class OracleDraft:
    def __init__(self, prompt: Sequence[int]) -> None:
        self._text = list(prompt)

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        self._text += [node.token for node in nodes]

    def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        texts = ([*self._text, *(node.token for node in path[1:])] for path in paths)
        return [(Guess(target(text), 0.9),) for text in texts]


@pytest.mark.parametrize("policy", ["plain", "gardener"])
def test_what_passes_take_before_the_first_token_changes_no_costs(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its passes are of another size, and the first ones are slow: kernels are compiled."""
    judged, early = Holder.judged, list[int]()

    def slow_at_first(holder: Holder, verdict: Verdict) -> None:
        assert holder.session is not None
        if not holder.session.speculation.counts.emitted:
            early.append(verdict.seq)
            times = [msgspec.structs.replace(t, compute=50 * t.compute) for t in verdict.times]
            verdict = msgspec.structs.replace(verdict, times=tuple(times))
        judged(holder, verdict)

    monkeypatch.setattr(Holder, "judged", slow_at_first)

    async def scenario(ring: SimulatedRing) -> None:
        before = ring.holder.costs.round_trip(1)
        assert await write(ring, policy) == written()
        assert early == [0, 1], "the prompt comes in two pieces"
        session = ring.holder.session
        assert session is not None
        facts = session.round.costs.facts()
        assert facts["levels"] == pytest.approx([1.0, 1.0], rel=0.01)
        assert ring.holder.costs.round_trip(1) == pytest.approx(before, rel=0.02)
        # Nor does it count where the time of an answer is told.
        stage_times = session.stage_times
        assert stage_times.compute == pytest.approx([0.08 * stage_times.segments] * 2, rel=1e-3)
        assert policy != "plain" or stage_times.segments == TOKENS - 1

    with_ring(scenario, 2)


def test_time_before_the_first_token_turns_no_guesses_off() -> None:
    """That of the prompt, and that in which nobody asked."""

    async def scenario(ring: SimulatedRing) -> None:
        for _ in range(3):
            await asyncio.sleep(1000)  # the user thinks
            assert await write(ring) == written()
            session = ring.holder.session
            assert session is not None
            assert session.speculation.counts.plain == 0
            assert ring.holder.dispatch.payoffs.at(1).speculating

    with_ring(scenario, 2, drafters=[Oracle()])


def test_every_verdict_that_is_about_to_come_is_waited_for() -> None:
    """The only stage takes 160 ms for a segment; its verdict is there 2 ms later and says more."""

    async def scenario(ring: SimulatedRing) -> None:
        text: list[int] = []
        policy = make("gardener", Bounds(rows=4, floor=0.05))
        async for piece in ring.holder.open(PROMPT, policy, Limits(TOKENS, CONTEXT)):
            text += piece.tokens
        assert text == written()
        records = list(ring.holder.trace)
        verdicts = [record.at for record in records if record.what == "judged"]
        later = [record.at for record in records if record.what == "sent" and record.seq > 1]
        assert len(later) > 4
        for at in later:
            assert at == pytest.approx(min(verdicts, key=lambda came: abs(came - at)), abs=1e-5)

    with_ring(scenario, 1, drafters=[Oracle()])
