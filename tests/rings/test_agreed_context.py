"""How long a text may be in a ring: `--context`, the model, and what the stages say beforehand."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import tiny
from loopback import card

import gardener
from gardener.draft.drafter import Drafter
from gardener.draft.ngram import NGram
from gardener.errors import UserError
from gardener.evaluation.reference import plain_reference
from gardener.protocol.messages import Card
from gardener.protocol.room import MOST_CONTEXT
from gardener.rings.context import agreed_context, tell_short_drafters
from gardener.rings.settings import RingSettings


def cards(*longest: int, slots: Sequence[int] = ()) -> list[Card]:
    """One for each stage; `slots` for which each has memory."""
    rooms = slots or [0] * len(longest)
    return [
        msgspec.structs.replace(
            card(stage, len(longest)), longest=most, kv_slot=10, kv_room=10 * room
        )
        for stage, (most, room) in enumerate(zip(longest, rooms, strict=True), 1)
    ]


@pytest.mark.parametrize(
    ("asked", "longest", "tokens"),
    [
        (None, (0, 0), 4096),
        (None, (0, 1000), 1000),  # a stage that was told to take no more
        (None, (0, 9000), 4096),
        (512, (0, 0), 512),
        (512, (0, 512), 512),
        (4096, (0, 0), 4096),
        (8192, (9000, 8192), 8192),
    ],
)
def test_it_is_what_was_asked_or_else_what_the_model_was_made_for(
    asked: int | None, longest: tuple[int, int], tokens: int
) -> None:
    said: list[str] = []
    assert agreed_context(asked, 4096, cards(*longest), said.append) == tokens
    assert bool(said) == (asked == 8192)


def test_what_the_model_was_not_made_for_is_said() -> None:
    said: list[str] = []
    agreed_context(8192, 4096, cards(0, 0), said.append)
    assert said == [
        "--context is 8192, and this model was made for texts of 4096 tokens: what it writes "
        "beyond that may be worth little"
    ]


def test_more_than_a_stage_takes_or_has_memory_for_is_refused_at_once() -> None:
    with pytest.raises(UserError) as refused:
        agreed_context(2000, 4096, cards(0, 1500, 1800), print)
    assert str(refused.value) == (
        "--context is 2000, and stage 2 takes requests of up to 1500 tokens: ask for less, or "
        "start that stage with a larger --context"
    )
    with pytest.raises(UserError) as refused:
        agreed_context(2000, 4096, cards(0, 0, slots=(4000, 1500)), print)
    assert str(refused.value) == (
        "--context is 2000, and stage 2 has memory for the keys and values of 1500 tokens, 512 of "
        "them for guesses: ask for at most 960, or give the stage more (--kv-memory)"
    )
    assert agreed_context(960, 4096, cards(0, 0, slots=(4000, 1500)), print) == 960
    with pytest.raises(UserError, match="that is too little for any request"):
        agreed_context(20, 4096, cards(0, slots=(400,)), print)
    # What nobody asked for is not refused: few requests are as long as the model can read.
    assert agreed_context(None, 4096, cards(0, slots=(1500,)), print) == 4096


def test_drafters_that_were_made_for_less_are_named() -> None:
    class Short(NGram):
        name = "short"
        context = 2048

    said: list[str] = []
    drafters: list[Drafter] = [NGram(), Short()]
    tell_short_drafters(drafters, 2048, said.append)
    assert said == []
    tell_short_drafters(drafters, 4096, said.append)
    assert said == [
        "the short drafter was made for texts of 2048 tokens, and here they may have 4096: beyond "
        "that it may guess worse, and as much less of what it guesses is sent"
    ]


def test_the_stages_of_a_local_ring_are_told() -> None:
    given = RingSettings(local=2, context=77).node_options()
    assert given[given.index("--context") + 1] == "77"
    assert "--context" not in RingSettings(local=2).node_options()


@pytest.mark.parametrize("context", [1, 0, -3, MOST_CONTEXT + 1])
def test_a_context_that_cannot_be_is_refused(context: int) -> None:
    with pytest.raises(UserError, match=f"context is {context} tokens, .* lies between 2 and "):
        RingSettings(local=2, context=context)


def test_a_ring_of_a_scaled_model_goes_on_beyond_and_ends_where_it_was_told(
    tmp_path: Path,
) -> None:
    """Processes of its own: the text of transformers, from beyond the first length to --context,
    which is longer than what the model was made for."""
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    tiny.make("llama", tmp_path, max_position_embeddings=16, rope_parameters=rope)
    tiny.name_words(tmp_path)
    prompt = [(7 * i + i // 5) % tiny.VOCAB for i in range(28)]
    text = " ".join(f"w{token}" for token in prompt)
    said: list[str] = []

    async def asked(context: int | None) -> tuple[list[int], str | None]:
        settings = RingSettings(local=2, model=str(tmp_path), context=context)
        async with (
            gardener.open_ring(settings, said.append) as ring,
            ring.ask(text, raw=True, ignore_eos=True) as session,
        ):
            tokens = [token async for piece in session for token in piece.tokens]
            return tokens, session.finish_reason

    ((expected, _),) = plain_reference(tmp_path, [prompt], 256, 60, (), "float32", "cpu")
    assert asyncio.run(asked(60)) == (expected, "context")
    assert len(prompt) + len(expected) == 60
    assert [line for line in said if "was made for texts of 32 tokens" in line]
    with pytest.raises(UserError, match="has 28 tokens, and with the answer there may be 20: "):
        asyncio.run(asked(20))
