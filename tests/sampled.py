"""A plain reference of the pick: sorts, recounts whole texts, computes in float64, one row at a
time."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gardener.model.noise import Noise
from gardener.protocol.sampling import Sampling

Floats = NDArray[np.float64]
Logits = Sequence[float] | NDArray[Any]


def changed(logits: Logits, sampling: Sampling, text: Sequence[int], prompt: int) -> Floats:
    """Logits by the temperature after a text, whose first `prompt` tokens are the prompt."""
    scores = np.array(logits, np.float64)
    for token, bias in sampling.logit_bias:
        scores[token] += bias
    if len(text) - prompt < sampling.min_tokens:
        scores[list(sampling.eos)] = -math.inf
    for token in set(text):
        factor = sampling.repetition_penalty
        scores[token] = scores[token] / factor if scores[token] > 0 else scores[token] * factor
    for token, count in Counter(text[prompt:]).items():
        scores[token] -= sampling.presence_penalty + count * sampling.frequency_penalty
    return scores / (sampling.temperature or 1.0)


def odds(scores: Floats) -> Floats:
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


def kept(scores: Floats, sampling: Sampling) -> list[int]:
    """The tokens that min-p, top-k and top-p leave."""
    chances = odds(scores)
    left = [t for t in range(len(scores)) if chances[t] >= sampling.min_p * chances.max()]
    left.sort(key=lambda token: -scores[token])
    if 0 < sampling.top_k < len(left):
        border = scores[left[sampling.top_k - 1]]
        left = [token for token in left if scores[token] >= border]
    total = chances[left].sum()
    return sorted(
        token
        for token in left
        if sum(chances[t] for t in left if scores[t] > scores[token]) < sampling.top_p * total
    )


def law(logits: Logits, sampling: Sampling) -> Floats:
    """The probability of each token where nothing stands before."""
    scores = changed(logits, sampling, (), 0)
    chances = np.zeros(len(scores))
    left = kept(scores, sampling)
    chances[left] = odds(scores)[left]
    return np.asarray(chances / chances.sum())


def pick(logits: Logits, sampling: Sampling, text: Sequence[int], prompt: int) -> int:
    """The token that follows a text."""
    scores = changed(logits, sampling, text, prompt)
    if sampling.is_greedy:
        return int(scores.argmax())
    assert sampling.seed is not None
    noise = Noise(sampling.seed).row(len(text), len(scores))
    left = kept(scores, sampling)
    return left[int((scores + noise)[left].argmax())]


def follows_law(counts: Counter[int], chances: Floats) -> bool:
    """Chi-square, at a level of one in ten thousand or so; nothing that cannot be is drawn."""
    draws = counts.total()
    possible = [token for token, chance in enumerate(chances) if chance > 0]
    if not set(counts) <= set(possible):
        return False
    distance = sum((counts[t] - draws * chances[t]) ** 2 / (draws * chances[t]) for t in possible)
    freedom = len(possible) - 1
    if not freedom:
        return True
    # Wilson and Hilferty 1931: the cube root of chi-square by its freedom is nearly normal.
    spread = math.sqrt(2 / (9 * freedom))
    return bool(((distance / freedom) ** (1 / 3) - (1 - spread**2)) / spread < 3.7)
