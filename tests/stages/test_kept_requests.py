"""Requests that begin with rows of others, through real stages of a tiny model: texts as ever, and
never more memory than was set aside."""

import random
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from real_stages import Asked, RealStages, Truth

from gardener.decoding.events import Abort
from gardener.decoding.policy import POLICIES
from gardener.model.checkpoint.slices import Slice
from gardener.protocol.messages import Close, Segment

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3]
CUT = (Slice(0, 1, 4), Slice(1, 2, 4), Slice(2, 4, 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    torch.set_num_threads(1)
    return tiny.make("llama", folder)


@pytest.fixture(scope="module")
def truth(model: Any) -> Truth:
    return Truth(model)


def rows_sent(asked: Asked) -> int:
    """Of the prompt, but for its root."""
    last = len(asked.speculation.prompt) - 1
    sent = [message for message in asked.sent if isinstance(message, Segment)]
    return sum(node < last for segment in sent for node in segment.ids)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("cut", [(Slice(0, 4, 4),), CUT], ids=["one", "three"])
def test_the_next_turn_begins_with_what_is_kept(
    folder: Path, truth: Truth, policy: str, cut: tuple[Slice, ...]
) -> None:
    for seed in range(3):
        chance = random.Random(seed)
        ring = RealStages(folder, cut, chance)
        options: dict[str, Any] = {"drafts": truth.drafts(chance), "policy": policy, "keep": True}
        first = ring.ask(PROMPT, 9, **options)
        ring.finish()
        assert first.emitted == truth.after(PROMPT, 9)
        kept = first.speculation.announced
        assert kept in (len(PROMPT) + 8, len(PROMPT) + 9)
        # All stages have just these rows, and no memory for more.
        assert [each.slots for each in ring.schedulers] == [kept] * len(cut)
        assert first.speculation.settled_rows >= kept
        for executor in ring.executors:
            assert executor.kv_memory == kept * executor.kv_slot
        prompt = [*PROMPT, *first.emitted, 11, 12, 13]
        second = ring.ask(prompt, 7, prefix=(1, kept), **options)
        ring.finish()
        assert second.emitted == truth.after(prompt, 7)
        assert rows_sent(second) == len(prompt) - 1 - kept
        # From a prefix of a prefix, after its own source has gone.
        ring.send(Close(1))
        third = ring.ask([*prompt[:-1], 20], 6, prefix=(2, len(prompt) - 1), **options)
        ring.finish()
        assert third.emitted == truth.after([*prompt[:-1], 20], 6)
        assert rows_sent(third) == 0
        for request in (2, 3):
            ring.send(Close(request))
        ring.finish()
        assert [each.kv_memory for each in ring.executors] == [0] * len(cut)
        assert ring.failures == []


@pytest.mark.parametrize("policy", POLICIES)
def test_a_request_begins_with_rows_of_one_that_runs(
    folder: Path, truth: Truth, policy: str
) -> None:
    """At any moment of it, with all rows of its prompt and answer that are announced."""
    lengths = set()
    for seed in range(16):
        chance = random.Random(seed)
        ring = RealStages(folder, CUT, chance)
        options: dict[str, Any] = {"drafts": truth.drafts(chance), "policy": policy}
        first = ring.ask(PROMPT, 9, **options)
        for _ in range(chance.randrange(80)):
            ring.step()
        text, count = [*PROMPT, *first.emitted], first.speculation.announced
        if first.reason:  # too late: nothing of it is kept
            continue
        prompt = [*text[:count], 11, 12]
        second = ring.ask(prompt, 5, prefix=(1, count) if count else None, **options)
        if chance.random() < 0.5:  # the first one is left while both run
            first.run(first.round.handle(Abort("abandoned"), first.now))
        ring.finish()
        assert second.emitted == truth.after(prompt, 5)
        assert first.emitted == truth.after(PROMPT, 9)[: len(first.emitted)]
        assert ring.failures == []
        assert [each.slots for each in ring.schedulers] == [0, 0, 0]
        lengths.add(count)
    assert len(lengths) > 2, "or else this says little"


def test_what_is_announced_is_at_every_stage(folder: Path, truth: Truth) -> None:
    """A request that is left at any moment: each stage has at least what is announced, and at most
    what is said to be there."""
    seen = set()
    for seed in range(60):
        chance = random.Random(seed)
        ring = RealStages(folder, CUT, chance)
        asked = ring.ask(PROMPT, 9, drafts=truth.drafts(chance), policy="gardener", keep=True)
        for _ in range(chance.randrange(90)):
            ring.step()
        if not asked.reason:
            asked.run(asked.round.handle(Abort("abandoned"), asked.now))
        assert asked.speculation.kept
        ring.finish()
        announced, most = asked.speculation.announced, asked.speculation.settled_rows
        for scheduler in ring.schedulers:
            assert announced <= scheduler.slots <= most
        seen.add(announced)
    assert {0, 5, 10} < seen
    assert max(seen) > len(PROMPT)


def test_an_opening_for_which_there_is_nothing_fails_alone(folder: Path, truth: Truth) -> None:
    ring = RealStages(folder, CUT, random.Random(0), room=1200)
    first = ring.ask(PROMPT, 30)
    # It begins with what nobody has, with more than there is, and with more than there is room for.
    ring.ask(PROMPT, 4, prefix=(77, 3))
    ring.step()
    ring.ask(PROMPT * 2, 4, prefix=(1, 31))
    ring.ask(PROMPT, 4, spare=600)
    while len(ring.failures) < 3:
        assert ring.step()
    assert [(each.stage, each.request, each.seq) for each in ring.failures] == [
        (1, 2, 0),
        (1, 3, 0),
        (1, 4, 0),
    ]
    begins, fewer, room = (each.why for each in ring.failures)
    assert begins == "the request begins with 3 tokens of request 77, and 0 are here"
    assert fewer.startswith("the request begins with 31 tokens of request 1, and ")
    assert room.startswith("there is memory for the keys and values of 1200 tokens, 576 are set ")
    for request in (2, 3, 4):
        asked = ring.asked[request]
        asked.run(asked.round.handle(Abort("failed"), asked.now))
    ring.finish(first)
    assert first.emitted == truth.after(PROMPT, 30)
    # There is room again.
    ring.finish(again := ring.ask(PROMPT, 4, spare=600))
    assert again.emitted == truth.after(PROMPT, 4)


def test_of_a_request_that_was_given_up_nothing_is_kept(folder: Path) -> None:
    ring = RealStages(folder, CUT, random.Random(0))
    ring.ask(PROMPT, 9)
    while ring.asked[1].speculation.announced < 10:
        assert ring.step()
    ring.schedulers[1].give_up(1)
    ring.send(Close(1, keep=True))
    while any(ring.links):
        ring.step()
    assert [each.kept for each in ring.schedulers] == [(1,), (), (1,)]
    ring.ask(PROMPT, 9, prefix=(1, 10))
    ring.finish()
    assert [(each.stage, each.request) for each in ring.failures] == [(2, 2)]
    assert ring.schedulers[0].clear() == [1, 2]
    assert ring.executors[0].kv_memory == 0
