"""Chat templates and system messages of a ring, as a program sets them."""

import asyncio
from pathlib import Path

import pytest
import tiny
import words

import gardener
from gardener.evaluation.reference import plain_reference
from gardener.holder.prompter import Prompter


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    tiny.make("llama", tmp_path / "base", vocab_size=words.ROWS, max_position_embeddings=512)
    words.name_bytes(tmp_path / "base", ["<|im_start|>", "<|im_end|>"])
    return tmp_path / "base"


def truth(folder: Path, prompt: str) -> list[int]:
    """What transformers writes after this text, up to where ChatML ends an answer."""
    prompter = Prompter(folder, template="chatml")
    tokens = prompter.encode(prompt, raw=True)
    ((written, _),) = plain_reference(folder, [tokens], 8, 512, prompter.eos, "float32", "cpu")
    return written


def test_a_ring_has_a_template_and_a_system_message_and_a_question_may_have_its_own(
    folder: Path,
) -> None:
    settings = gardener.RingSettings(
        simulate=1,
        model=str(folder),
        template="chatml",
        system="Be brief.",
        draft=gardener.DraftSettings(()),
    )
    turn = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"

    async def main() -> None:
        async with gardener.open_ring(settings) as ring:

            async def asked(system: str | None = None, raw: bool = False) -> list[int]:
                session = ring.ask("Why?", max_new_tokens=8, system=system, raw=raw)
                return [token async for piece in session for token in piece.tokens]

            brief, long = (
                f"<|im_start|>system\nBe {how}.<|im_end|>\n" for how in ("brief", "long")
            )
            assert await asked() == truth(folder, brief + turn)
            assert await asked(system="Be long.") == truth(folder, long + turn)
            assert await asked(system="") == truth(folder, turn)
            assert await asked(raw=True) == truth(folder, "Why?")
            with pytest.raises(gardener.UserError, match="a raw text has no system message"):
                ring.ask("Why?", raw=True, system="Be long.")
            assert ring.prompter.template == "chatml"

    with asyncio.Runner(loop_factory=settings.loop()) as runner:
        runner.run(main())


def test_a_template_that_does_not_exist_is_said_when_settings_are_made() -> None:
    with pytest.raises(gardener.UserError, match="there is no chat template 'vicunja'"):
        gardener.RingSettings(local=1, template="vicunja")
