"""A ring that answers a chat: simulated stages of a tiny model, in this process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
import tiny
import words

import gardener
from gardener.cli.chat.dialogue import ChatMessage
from gardener.cli.chat.knobs import Knobs
from gardener.cli.chat.ring import RingSource
from gardener.cli.chat.source import Part, TurnFigures
from gardener.decoding.policy import Bounds
from gardener.errors import PeerLost, UserError

SYSTEM = ChatMessage("system", "Be brief.")
QUESTION = ChatMessage("user", "Why?")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gardener.RingSettings:
    """Two stages of a model whose tokens are bytes."""
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    tiny.make("llama", tmp_path / "base", vocab_size=words.ROWS, max_position_embeddings=512)
    words.name_bytes(tmp_path / "base", ["<|im_start|>", "<|im_end|>"])
    return gardener.RingSettings(
        simulate=2,
        model=str(tmp_path / "base"),
        template="chatml",
        system="Not this one.",
        draft=gardener.DraftSettings(("ngram",)),
    )


def run(settings: gardener.RingSettings, scenario: Callable[[RingSource], Awaitable[None]]) -> None:
    """The scenario with a ring that is open, whose remarks are dropped."""

    async def main() -> None:
        source = RingSource(settings, Bounds(), lambda line: None, lambda line: None, print)
        async with source:
            await scenario(source)

    with asyncio.Runner(loop_factory=settings.loop()) as runner:
        runner.run(main())


async def ask(
    source: RingSource, messages: Sequence[ChatMessage], knobs: Knobs
) -> tuple[list[Part], TurnFigures]:
    figures = TurnFigures()
    async with aclosing(source.answer(messages, knobs, figures)) as answer:
        return [part async for part in answer], figures


def test_a_turn_has_the_text_of_the_ring_and_its_figures(settings: gardener.RingSettings) -> None:
    knobs = Knobs(max_tokens=40, policy="gardener", ignore_eos=False)

    async def scenario(source: RingSource) -> None:
        assert source.context == 512
        parts, figures = await ask(source, [SYSTEM, QUESTION], knobs)
        ring = await source.ring()
        session = ring.ask("Why?", system="Be brief.", max_new_tokens=40)
        pieces = [piece async for piece in session]
        assert "".join(part.text for part in parts) == "".join(piece.text for piece in pieces)
        assert sum(piece.missed for piece in pieces) == session.speculation.counts.missed
        assert {part.guessed for part in parts if part.text} == {True, False}
        assert figures.tokens == (figures.accepted or 0) + (figures.missed or 0) > 0
        assert figures.prompt == len(ring.prompter.encode("Why?", system="Be brief."))
        assert figures.policy == "gardener"
        assert figures.finish in ("stop", "length")
        answered = ChatMessage("assistant", "Because.")
        _, figures = await ask(source, [QUESTION, answered, QUESTION], knobs)
        turns = ring.prompter.encode("Why?", history=[("Why?", "Because.")])
        assert figures.prompt == len(turns)

    run(settings, scenario)


def test_a_broken_ring_is_opened_again_by_the_next_question(
    settings: gardener.RingSettings,
) -> None:
    async def scenario(source: RingSource) -> None:
        first = await source.ring()
        assert await source.ring() is first
        assert source.trouble == ""
        told = asyncio.Event()
        source.changed = told.set
        first.holder.give_up(PeerLost("stage 2 was lost"))
        await told.wait()
        assert "the ring is lost" in source.trouble
        _, figures = await ask(source, [QUESTION], Knobs(max_tokens=4, policy="plain"))
        assert figures.tokens
        assert await source.ring() is not first
        with pytest.raises(UserError, match="there may be 512"):
            await ask(source, [ChatMessage("user", "x" * 600)], Knobs(policy="plain"))

    run(settings, scenario)
