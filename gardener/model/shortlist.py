"""The tokens that min-p, then top-k, then top-p leave of one row.

What they leave is always the likeliest tokens down to some score, and all that have this score: so
it is known by a score, and nothing has to be sorted.
"""

import math

import torch
from torch import Tensor

from gardener.protocol.sampling import Sampling


def shortens(sampling: Sampling) -> bool:
    """Whether they leave anything out."""
    return sampling.min_p > 0 or sampling.top_k > 0 or sampling.top_p < 1


class Shortlist:
    """Made of the scores [vocabulary] of one row, float32: logits after the temperature.

    Sums are taken over one row at a time, so that they do not depend on others that happen to be in
    the pass: the order of a sum follows from the shape of all that is summed.
    """

    def __init__(self, scores: Tensor, top: float, sampling: Sampling) -> None:
        """`top`: the highest of them, a finite number."""
        self._border = _border(scores, top, sampling)
        self._mass: _Mass | None = None
        if sampling.top_p < 1:
            # By far the most rows have few tokens above the border, where there is one.
            left = scores if self._border == -math.inf else scores[scores >= self._border]
            self._mass = _Mass(left, top, sampling.top_p)

    def keeps(self, score: float) -> bool:
        """Whether tokens with this score are left. The highest score always is."""
        return score >= self._border and (self._mass is None or self._mass.keeps(score))


class _Mass:
    """Probability that lies above a score, among what is left for top-p."""

    def __init__(self, scores: Tensor, top: float, share: float) -> None:
        self._scores, self._weights = scores, (scores - top).exp()
        self._most = share * float(self._weights.sum(dtype=torch.float64))

    def keeps(self, score: float) -> bool:
        """Whether less than the wanted share lies above."""
        above = self._weights[self._scores > score]
        return float(above.sum(dtype=torch.float64)) < self._most


def _border(scores: Tensor, top: float, sampling: Sampling) -> float:
    """The least score that min-p and top-k leave."""
    border = torch.tensor(-math.inf)
    if sampling.min_p > 0:
        border = torch.tensor(top + math.log(sampling.min_p), dtype=torch.float32)
    if 0 < sampling.top_k < len(scores):
        least = scores.topk(sampling.top_k, sorted=False).values.amin()
        border = torch.maximum(border, least.cpu())
    return float(border)


def best_left(noisy: Tensor, scores: Tensor, token: int, sampling: Sampling) -> int:
    """Where `noisy`, the scores [vocabulary] with their noise, is highest among the tokens that are
    left. `token` is where it is highest of all: mostly it is left, and there is nothing to search.
    """
    top, score = float(scores.amax()), float(scores[token])
    if not math.isfinite(top):
        return token  # a model that computes no numbers has no probabilities
    shortlist = Shortlist(scores, top, sampling)
    while not shortlist.keeps(score):
        noisy = noisy.masked_fill(scores <= score, -math.inf)  # all that is left stands higher
        token = int(noisy.argmax())
        score = float(scores[token])
    return token
