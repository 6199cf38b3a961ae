"""Prompts of many segments, with a real head: asked at any moment, it answers with what it can."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import simulated
import test_eagle
import torch
from simulated import CONTEXT, LAYERS, PROFILE, recorded, with_ring, written

from gardener.decoding.costs import Costs
from gardener.decoding.events import Grow, Grown, Judged, Moment, Room, Send
from gardener.decoding.limits import Limits
from gardener.decoding.policy import POLICIES, Bounds, make
from gardener.decoding.speculation import Speculation
from gardener.decoding.tree import Guess
from gardener.draft.calibration import Calibration
from gardener.draft.drafter import Drafter
from gardener.draft.incremental import Incremental
from gardener.draft.ngram import NGram
from gardener.protocol.messages import Segment, Verdict
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.ring import SimulatedModel, SimulatedRing

WIDTH = 32
"""Of the heads in `test_eagle`."""


@pytest.mark.parametrize("chunk", [1, 2, 5, 300])
@pytest.mark.parametrize("kind", ["eagle1", "eagle3", "induction"])
def test_a_head_answers_at_any_moment_of_the_prompt(kind: str, chunk: int, tmp_path: Path) -> None:
    play = test_eagle.Play(*test_eagle.build(kind, tmp_path), seed=3)
    root = play.tree.root
    child = play.tree.graft(root, 7, 0.0)  # as n-gram guesses it, before anything is computed
    below = play.tree.graft(child.id, 2, 0.0)
    paths = [play.tree.lineage(node) for node in (root, child.id, below.id)]
    due = len(test_eagle.PROMPT) - 1
    assert play.draft.expand(paths) == [None, None, None]
    while len(play.features) < due:
        play.draft.settle((), play.feel(min(chunk, due - len(play.features))))
        for asked in (paths, paths[:1], paths[2:]):
            answers = play.draft.expand(asked)
            if len(play.features) < due:
                assert answers == [None] * len(asked)
    for path, answer in zip(paths, play.draft.expand(paths), strict=True):
        play.check(path, answer)


def in_pieces(prompt: Sequence[int], chunk: int, policy: str, stages: int, tmp_path: Path) -> None:
    head, _, _ = test_eagle.build("eagle3", tmp_path)
    made = recorded(prompt, taps=len(head.taps), width=WIDTH)
    features = torch.randn(made.features.shape, generator=torch.Generator().manual_seed(1))
    library = Library([type(made)(made.tokens, made.prompt, features)], head.taps)
    drafters: list[Drafter] = [NGram(), Incremental(head, Calibration())]

    async def scenario(ring: SimulatedRing) -> None:
        for _ in range(2):  # the second request meets drafters that know the first one
            text: list[int] = []
            limits = Limits(simulated.TOKENS, CONTEXT)
            chosen = make(policy, Bounds())
            session = ring.holder.open(prompt, chosen, limits, chunk=chunk)
            async for piece in session:
                text += piece.tokens
            assert text == written(prompt)
            assert policy == "plain" or session.speculation.counts.drafted > 0

    with_ring(
        scenario, stages, PROFILE, held=library, model=SimulatedModel(LAYERS, WIDTH),
        drafters=drafters,
    )  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("stages", [1, 3])
def test_a_head_and_ngram_with_a_prompt_of_many_segments(
    policy: str, stages: int, tmp_path: Path
) -> None:
    chance = random.Random(1)
    prompt = [chance.randrange(5) for _ in range(90)]
    in_pieces(prompt, 7, policy, stages, tmp_path)


@pytest.mark.parametrize("chunk", [1, 2, 30, 89, 90, 400])
def test_a_head_and_ngram_with_segments_of_any_size(chunk: int, tmp_path: Path) -> None:
    chance = random.Random(2)
    prompt = [chance.randrange(5) for _ in range(90)]
    in_pieces(prompt, chunk, "gardener", 2, tmp_path)


def test_a_drafter_that_cannot_say_yet_is_asked_again_when_more_is_settled() -> None:
    policy = make("gardener", Bounds(floor=0.01))
    decoding = Speculation(
        1, [4], policy, Limits(9, 99), sources=(False,), moment=Moment(costs=Costs.flat(1))
    )
    (_, asked) = decoding.start()
    assert asked == Grow((0,))
    # It is not asked again on the spot: it would say the same.
    assert decoding.handle(Grown(((0, None),))) == []
    (sent, *rest) = decoding.handle(Room())
    assert isinstance(sent, Send)
    assert isinstance(sent.message, Segment)
    assert rest == []
    commands = decoding.handle(Judged(Verdict(1, 0, (0,), (3,), ())))
    assert Grow((1,)) in commands
    # A guess about which it could not say anything stays in the tree and is asked about later.
    (asked,) = decoding.handle(Grown(((1, (Guess(2, 0.9), Guess(1, 0.05))),)))
    assert asked == Grow((2,))
    assert decoding.handle(Grown(((2, None),))) == []
    (*_, asked) = decoding.handle(Room())
    assert asked == Grow((3,))
    assert decoding.handle(Grown(((3, None),))) == []
    after = decoding.handle(Judged(Verdict(1, 1, (1,), (2,), ())))
    assert decoding.tree.root == 2
    assert any(isinstance(command, Grow) and 2 in command.nodes for command in after)
