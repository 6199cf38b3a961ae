"""How a target picks, the plain way: one row, all of the vocabulary, in numpy."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gardener.model.noise import Noise
from gardener.protocol.sampling import Sampling

Floats = NDArray[np.float64]


def pick(logits: Floats, sampling: Sampling, text: Sequence[int], prompt: int) -> int:
    """The token after a text, of which `prompt` tokens are the prompt's."""
    left = kept(changed(logits, sampling, text, prompt), sampling)
    if sampling.temperature:
        assert sampling.seed is not None
        noise = Noise(sampling.seed).row(len(text), len(logits)).astype(float)
        left = left / sampling.temperature + noise
    return int(left.argmax())


def changed(logits: Floats, sampling: Sampling, text: Sequence[int], prompt: int) -> Floats:
    """With bias and penalties."""
    logits = logits.copy()
    for token, bias in sampling.logit_bias:
        logits[token] += bias
    if len(text) - prompt < sampling.min_tokens:
        logits[list(sampling.eos)] = -np.inf
    for token in set(text):
        factor = sampling.repetition_penalty
        logits[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
    for token in text[prompt:]:
        logits[token] -= sampling.frequency_penalty
    for token in set(text[prompt:]):
        logits[token] -= sampling.presence_penalty
    return logits


def kept(logits: Floats, sampling: Sampling) -> Floats:
    """With nothing left but what min-p, top-k and top-p keep."""
    if not sampling.temperature:
        return logits
    odds = softmax(logits / sampling.temperature)
    logits = np.where(odds < sampling.min_p * odds.max(), -np.inf, logits)
    order = np.argsort(-logits, kind="stable")
    if sampling.top_k:
        logits[order[sampling.top_k :]] = -np.inf
    odds = softmax(logits[order] / sampling.temperature)
    before = np.cumsum(odds) - odds
    logits[order[before >= sampling.top_p]] = -np.inf
    return logits


def softmax(logits: Floats) -> Floats:
    """Probabilities."""
    odds: Floats = np.exp(logits - logits.max())
    odds /= odds.sum()
    return odds
