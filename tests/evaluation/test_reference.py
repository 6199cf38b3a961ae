"""The reference text: logits of transformers, and picks of the settings that a ring was given."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import GenerationConfig

from gardener.evaluation.picking import picker
from gardener.evaluation.reference import TIE, compare, plain_reference
from gardener.model.noise import Noise
from gardener.protocol.sampling import GREEDY, Sampling

PROMPTS = [[1, 5, 9, 5], [7], [3, 3, 2]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return tiny.make("llama", folder)


def reference(folder: Path, sampling: Sampling = GREEDY, eos: tuple[int, ...] = ()) -> Any:
    return plain_reference(folder, PROMPTS, 12, 256, eos, "float32", "cpu", sampling)


def test_the_likeliest_tokens_are_those_that_transformers_generates(
    model: Any, folder: Path
) -> None:
    settings: Any = GenerationConfig
    model.generation_config = settings(do_sample=False, pad_token_id=0)
    for prompt, (tokens, gaps) in zip(PROMPTS, reference(folder), strict=True):
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12)
        assert tokens == out[0, len(prompt) :].tolist()
        assert len(gaps) == 12


def test_windows_that_a_family_does_not_have_change_nothing(tmp_path: Path) -> None:
    """Transformers computes a Llama without them, but would drop keys from its cache."""
    model = tiny.make("llama", tmp_path)
    file = tmp_path / "config.json"
    kinds = ["sliding_attention"] * tiny.LAYERS
    odd = {"layer_types": kinds, "sliding_window": 3, "use_sliding_window": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | odd))
    for prompt, (tokens, _) in zip(PROMPTS, reference(tmp_path), strict=True):
        text = list(prompt)
        for token in tokens:
            assert token == int(tiny.last_logits(model, text).argmax())
            text.append(token)


def test_with_a_temperature_the_pick_has_the_noise_of_its_place(model: Any, folder: Path) -> None:
    """Here computed anew for every token, without a cache."""
    sampling = Sampling(0.7, seed=5)
    for prompt, (tokens, gaps) in zip(PROMPTS, reference(folder, sampling), strict=True):
        text = list(prompt)
        for token, gap in zip(tokens, gaps, strict=True):
            scores = tiny.last_logits(model, text).numpy() / 0.7
            noisy = np.sort(scores + Noise(5).row(len(text), tiny.VOCAB))
            assert token == int(np.argmax(scores + Noise(5).row(len(text), tiny.VOCAB)))
            assert gap == pytest.approx(float(noisy[-1] - noisy[-2]), abs=1e-4)
            text.append(token)


def test_the_seed_decides(model: Any, folder: Path) -> None:
    texts = [reference(folder, Sampling(1.0, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_it_ends_where_the_model_ends_it(model: Any, folder: Path) -> None:
    whole, _ = reference(folder)[0]
    ended, _ = reference(folder, eos=(whole[4],))[0]
    assert ended == whole[: whole.index(whole[4]) + 1]


def test_two_scores_that_are_close_with_their_noise_are_a_tie() -> None:
    noise = torch.from_numpy(Noise(5).row(2, 4).copy())
    scores = torch.tensor([1.0, 1.0 + TIE / 2, -50.0, -50.0]) - noise
    token, gap = picker(Sampling(1.0, seed=5), 1)([8, 9], scores)
    assert (token, gap < TIE) == (1, True)
    assert compare(0, "gardener", ([token], [gap]), [0]).outcome == "tie"


def test_the_gap_is_to_the_next_token_that_is_left() -> None:
    scores = torch.tensor([5.0, 4.0, 3.0, 2.0])
    noise = torch.from_numpy(Noise(5).row(2, 4).copy())
    two = picker(Sampling(1.0, top_k=2, seed=5), 1)([8, 9], scores)
    kept = (scores + noise)[:2]
    assert two.token == int(kept.argmax())
    assert two.gap == pytest.approx(abs(float(kept[0] - kept[1])), abs=1e-5)
    assert picker(Sampling(1.0, top_k=1, seed=5), 1)([8, 9], scores) == (0, float("inf"))


def test_penalties_count_the_answer_and_the_end_has_to_wait() -> None:
    pick = picker(Sampling(presence_penalty=2.0, min_tokens=2, eos=(2,)), 1)
    scores = torch.tensor([1.0, 2.0, 9.0, 1.5])
    token, gap = pick([1], scores)
    assert token == 1
    assert gap == pytest.approx(0.5)
    assert pick([1, 1], scores).token == 3
    assert pick([1, 1, 3], scores).token == 2


def test_noise_needs_a_seed() -> None:
    with pytest.raises(ValueError, match="noise without a seed"):
        picker(Sampling(1.0), 1)
