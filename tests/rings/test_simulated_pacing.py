"""When a segment leaves: a holder on a simulated ring keeps to what the pacing reckons."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from fakes import target
from simulated import LAYERS, PROMPT, TOKENS, recorded, with_ring, write, written

from gardener.decoding.curves import Curve
from gardener.decoding.pacing import Patience
from gardener.decoding.tree import Guess, Node
from gardener.draft.drafter import Drafter
from gardener.draft.ngram import NGram
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.protocol.tensors import Tensor
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.ring import SimulatedRing
from gardener.rings.simulate.worker import Meter
from gardener.runtime import clock
from gardener.runtime.trace import Record


class Oracle:
    """A drafter that takes time, knows the text, and after a number of calls answers no more."""

    name = "oracle"
    numbers = ""
    instant = False
    context = None
    taps: tuple[int, ...] = ()

    def __init__(self, answers: int, seconds: float = 0.001) -> None:
        self.meter = Meter()
        self._answers, self._seconds = answers, seconds

    def open(
        self, prompt: Sequence[int], sampling: Sampling = GREEDY, **source: Any
    ) -> "OracleDraft":
        return OracleDraft(self, prompt)

    def charge(self) -> None:
        """For one answer."""
        self._answers -= 1
        self.meter.charge(self._seconds if self._answers >= 0 else 1e9)


class OracleDraft:
    def __init__(self, oracle: Oracle, prompt: Sequence[int]) -> None:
        self._oracle = oracle
        self._text = list(prompt)

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        self._text += [node.token for node in nodes]

    def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        self._oracle.charge()
        return [
            (Guess(target([*self._text, *(node.token for node in path[1:])]), 0.9),)
            for path in paths
        ]


def segments(
    monkeypatch: pytest.MonkeyPatch,
    drafters: Sequence[Drafter],
    prompt: Sequence[int],
    draft: float,
    policy: str = "gardener",
) -> tuple[list[Record], float]:
    """One answer of a ring of 4 stages of 40 ms: what was sent, counted from its beginning, and the
    patience with a drafter that was seen to take `draft` seconds."""

    def meter(found: Sequence[Drafter], curve: Curve, meter: Meter) -> None:
        for drafter in found:
            if isinstance(drafter, Oracle):
                drafter.meter = meter

    async def scenario(ring: SimulatedRing) -> tuple[list[Record], float]:
        costs = ring.holder.costs
        costs.observe_draft(1, draft)
        patience = Patience().ends(0, costs.at(len(prompt)), 0.0)
        begin = clock.now()
        assert await write(ring, policy, prompt=prompt) == written(prompt)
        sent = [record for record in ring.holder.trace if record.what == "sent"]
        return [record._replace(at=record.at - begin) for record in sent], patience

    monkeypatch.setattr("gardener.rings.simulate.ring.meter_drafters", meter)
    return with_ring(scenario, 4, held=Library([recorded(prompt)], (LAYERS,)), drafters=drafters)


def test_a_root_leaves_after_its_patience_with_a_drafter_that_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, patience = segments(monkeypatch, [Oracle(0)], (1,), 0.001)
    assert [record.rows for record in sent] == [1] * TOKENS
    assert sent[0].at == pytest.approx(patience)
    # No root after it waits: the drafter is not at work on what could follow it.
    assert max(after.at - before.at for before, after in pairwise(sent)) < 0.166


def test_what_was_drafted_leaves_with_the_root_when_the_drafter_falls_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, patience = segments(monkeypatch, [Oracle(3)], (1,), 0.001)
    assert sent[0].items == (0, 1, 2, 3)
    assert 0.003 < sent[0].at <= 0.003 + patience + 1e-6


def test_a_root_does_not_wait_for_a_drafter_that_is_known_to_be_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, _ = segments(monkeypatch, [Oracle(0)], (1,), 1.0)
    assert sent[0].at == 0.0


def test_a_free_drafter_goes_on_where_the_other_one_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, _ = segments(monkeypatch, [NGram(), Oracle(0)], PROMPT, 0.001)
    assert sum(record.rows for record in sent) > TOKENS + len(PROMPT)


@pytest.mark.parametrize("policy", ["gardener", "pipedec"])
def test_segments_leave_when_a_stage_is_free_for_them(
    monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    sent, _ = segments(monkeypatch, [Oracle(999)], (1,), 0.001, policy)
    gaps = [after.at - before.at for before, after in pairwise(sent)]
    assert min(gaps) == pytest.approx(0.040, abs=1e-4)
    # All stages are busy, though nothing has come back yet.
    assert gaps[0] == pytest.approx(0.040, abs=1e-4)


def test_the_pieces_of_a_tree_leave_together_where_a_policy_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent, _ = segments(monkeypatch, [Oracle(999)], (1,), 0.001, "chunked")
    assert min(after.at - before.at for before, after in pairwise(sent)) == 0.0
