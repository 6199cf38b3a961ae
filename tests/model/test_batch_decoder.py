"""Many texts at once are each what the model alone would write, with its hidden states."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from gardener.model.batch_decoder import BatchDecoder
from gardener.model.loader import Whole, load_whole
from gardener.rings.simulate import recording
from gardener.rings.simulate.recording import record

PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5], [3], [5, 8, 9, 7], [9, 3, 2]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Whole]:
    folder = tmp_path_factory.mktemp("model")
    return tiny.make("llama", folder), load_whole(folder, dtype="float32", device="cpu")


def _greedy(model: Any, prompt: Sequence[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(tiny.logits(model, tokens)[-1].argmax()))
    return tokens


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_logits_of_every_family_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    """Three lanes at different places: a prompt that was read in two chunks, one that was fed token
    by token, and one that began in the middle of it."""
    alone = tiny.make(kind, tmp_path)
    lanes = BatchDecoder(load_whole(tmp_path, dtype="float32", device="cpu"), 3, 40, [0], 0)
    chance = torch.Generator().manual_seed(2)
    texts = torch.randint(tiny.VOCAB, (3, 36), generator=chance).tolist()
    begins, got = (12, 0, -8), []  # the steps at which they would have been at position 0
    lanes.read(0, 0, texts[0][:7])
    lanes.read(0, 7, texts[0][7:12])
    lanes.read(2, 0, [5] * 20)  # another text was in this lane before

    def hear(logits: torch.Tensor) -> list[int]:
        got.append(logits)
        return [0] * 3

    for step in range(20):
        places = [max(step + begin, 0) for begin in begins]
        fed = [text[place] for text, place in zip(texts, places, strict=True)]
        lanes.step(fed, places, [0.0] * 3, hear)
    for lane, begin in enumerate(begins):
        for step in range(max(0, -begin), 20):
            expected = tiny.last_logits(alone, texts[lane][: step + begin + 1])
            torch.testing.assert_close(got[step][lane], expected, atol=1e-4, rtol=0)


def test_recordings_are_what_the_model_alone_writes(model: tuple[Any, Whole]) -> None:
    alone, whole = model
    recordings = record(whole, PROMPTS, 12, frozenset(), [0, 2, tiny.LAYERS], lanes=2)
    for prompt, made in zip(PROMPTS, recordings, strict=True):
        assert list(made.tokens) == _greedy(alone, prompt, 12)
        assert made.prompt == len(prompt)
        with torch.no_grad():
            states = alone(torch.tensor([made.tokens]), output_hidden_states=True).hidden_states
        expected = torch.cat([states[tap][0, :-1] for tap in (0, 2, tiny.LAYERS)], -1)
        assert torch.allclose(made.features, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "smollm", "qwen3"])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_prompt_read_in_chunks_is_as_one_that_is_fed_token_by_token(
    kind: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of one chunk, of several, and of none; in a lane that was used before, too."""
    tiny.make(kind, tmp_path)
    whole = load_whole(tmp_path, dtype="float32", device="cpu")
    chance = torch.Generator().manual_seed(1)
    prompts = [
        torch.randint(tiny.VOCAB, (length,), generator=chance).tolist()
        for length in (100, 1, chunk, chunk + 1, 2 * chunk + 1, 33)
    ]
    taps = [0, 2, tiny.LAYERS]
    monkeypatch.setattr(recording, "CHUNK", chunk)
    for prompt, made in zip(
        prompts, record(whole, prompts, 6, frozenset(), taps, lanes=2), strict=True
    ):
        lanes = BatchDecoder(whole, 1, 140, taps, 0)
        text = list(prompt)
        for at in range(len(prompt) + 5):
            (drawn,) = lanes.step([text[at]], [at], [0.0])
            text += [drawn] if at + 1 == len(text) else []
        assert list(made.tokens) == text
        features = lanes.kept(0, len(text) - 1).features
        torch.testing.assert_close(made.features, features, atol=1e-4, rtol=1e-4)


def test_a_prompt_takes_a_pass_for_each_chunk(
    model: tuple[Any, Whole], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    run = BatchDecoder._run

    def counted(self: BatchDecoder, tokens: Sequence[int], *more: Any) -> Any:
        passes.append(len(tokens))
        return run(self, tokens, *more)

    monkeypatch.setattr(BatchDecoder, "_run", counted)
    monkeypatch.setattr(recording, "CHUNK", 64)
    record(model[1], [[5] * 150], 3, frozenset(), [0])
    assert passes == [64, 64, 21, 1, 1, 1]


def test_a_recording_tells_how_far_it_is(
    model: tuple[Any, Whole], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "CHUNK", 4)
    told: list[str] = []
    record(model[1], [[5] * 6], 3, frozenset(), [0], tell=lambda each: told.append(str(each)))
    assert told == [
        "4 of 6 tokens of prompts read, 0 of at most 3 tokens written",
        "5 of 6 tokens of prompts read, 0 of at most 3 tokens written",
        "1 of at most 3 tokens written",
        "2 of at most 3 tokens written",
        "3 of at most 3 tokens written",
    ]
    record(model[1], PROMPTS, 3, frozenset(), [0], lanes=2, tell=lambda e: told.append(str(e)))
    assert told[-1] == "5 of 5 answers, 15 of at most 15 tokens written"


def test_a_recording_ends_with_the_end_of_sequence(model: tuple[Any, Whole]) -> None:
    alone, whole = model
    text = _greedy(alone, PROMPTS[0], 12)
    eos = text[7]
    (made,) = record(whole, PROMPTS[:1], 12, frozenset({eos}), [tiny.LAYERS])
    assert list(made.tokens) == text[: text.index(eos, len(PROMPTS[0])) + 1]


def test_sampling_draws_likely_tokens_and_repeats_itself(model: tuple[Any, Whole]) -> None:
    _, whole = model

    def draw(seed: int, heat: float) -> list[list[int]]:
        lanes = BatchDecoder(whole, 4, 8, [tiny.LAYERS], seed)
        return [lanes.step([7] * 4, [at] * 4, [heat] * 4) for at in range(8)]

    assert draw(1, 1.0) == draw(1, 1.0)
    assert draw(1, 1.0) != draw(2, 1.0)
    assert all(len(set(row)) == 1 for row in draw(1, 0.0))
