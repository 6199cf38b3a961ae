"""The pick: the token that the target itself writes after a row, and what it says of it.

A row gets the same pick whatever else is computed with it. Operations on single numbers, maxima and
counts of whole numbers may run over many rows at once; sums and logarithms run over one row at a
time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gardener.model.noise import Noise
from gardener.model.penalties import Penalties
from gardener.model.shortlist import best_left, shortens
from gardener.protocol.logprobs import TokenLogprobs
from gardener.protocol.sampling import Sampling


class Picks(NamedTuple):
    """After each row, in their order. `logprobs`: () unless they were asked for."""

    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()


class Sampler:
    """How one request picks: settings, noise, and the counts of its text. For one thread."""

    def __init__(self, sampling: Sampling, prompt: int, best: int | None = None) -> None:
        """`prompt`: its tokens. `best`: log probabilities are wanted, those of so many of the best
        tokens, too. Raises ValueError for noise without a seed."""
        self._sampling, self._prompt, self._best = sampling, prompt, best
        self._noise: Noise | None = None
        if not sampling.is_greedy:
            if sampling.seed is None:
                raise ValueError("noise without a seed: call Sampling.seeded first")
            self._noise = Noise(sampling.seed)
        self._penalties = Penalties(sampling, prompt) if sampling.reads_text else None

    def pick(self, logits: Tensor, picking: "Picking") -> Picks:
        """The picks after rows whose logits [rows, vocabulary] these are, of any float type."""
        raw = logits.float()
        if self._noise is not None:
            self._noise.forget(picking.certain)  # what is certain is not picked again
        tokens = self._choose(self.scores(raw, picking), picking.positions)
        return Picks(tuple(tokens), self._logprobs(raw, tokens))

    def scores(self, raw: Tensor, picking: "Picking") -> Tensor:
        """Logits with all that is added to them and taken from them, by the temperature."""
        sampling = self._sampling
        scores = raw
        if sampling.logit_bias or sampling.min_tokens or self._penalties is not None:
            scores = raw.clone()
            self._change(scores, picking)
        if sampling.temperature in (0, 1):
            return scores
        return scores / sampling.temperature

    def _change(self, scores: Tensor, picking: "Picking") -> None:
        """Bias, least length and penalties, in place."""
        sampling = self._sampling
        if sampling.logit_bias:
            tokens, biases = zip(*sampling.logit_bias, strict=True)
            scores[:, list(tokens)] += torch.tensor(biases, device=scores.device)
        end = self._prompt + sampling.min_tokens
        early = [row for row, position in enumerate(picking.positions) if position < end]
        if early and sampling.eos:
            banned = torch.zeros_like(scores[0], dtype=torch.bool)
            banned[list(sampling.eos)] = True
            scores[early] = scores[early].masked_fill(banned, -torch.inf)
        if self._penalties is not None:
            self._penalties.apply(scores, picking.text, picking.certain, picking.paths)

    def _choose(self, scores: Tensor, positions: Sequence[int]) -> list[int]:
        if self._noise is None:
            greedy: list[int] = scores.argmax(-1).tolist()
            return greedy
        vocabulary = scores.shape[-1]
        noise = {
            position: torch.from_numpy(self._noise.row(position, vocabulary)).to(scores.device)
            for position in set(positions)
        }
        noisy = torch.empty_like(scores)
        for row, position in enumerate(positions):
            torch.add(scores[row], noise[position], out=noisy[row])
        tokens: list[int] = noisy.argmax(-1).tolist()
        if not shortens(self._sampling):
            return tokens
        rows = zip(noisy, scores, tokens, strict=True)
        return [best_left(*row, self._sampling) for row in rows]

    def _logprobs(self, raw: Tensor, tokens: Sequence[int]) -> tuple[TokenLogprobs, ...]:
        if self._best is None:
            return ()
        return tuple(_told(row, token, self._best) for row, token in zip(raw, tokens, strict=True))


@dataclass(frozen=True, eq=False)
class Picking:
    """What the picks after some rows of a request depend on, besides their logits.

    sampler    of the request
    positions  [rows] of the tokens that are to be picked, in the text, counted from 0
    text       its tokens that are certain. May grow meanwhile: only the first `certain` count,
               never fewer than in the pick before
    paths      [rows] the tokens between these and the pick; () where a sampler reads no text
    """

    sampler: Sampler
    positions: Sequence[int]
    text: Sequence[int] = ()
    certain: int = 0
    paths: Sequence[Sequence[int]] = ()


def _told(logits: Tensor, pick: int, best: int) -> TokenLogprobs:
    """What one row [vocabulary] says of its pick, and of its best tokens. Of two that are equally
    likely, which is common in 16 bits, the lower token comes first."""
    total = logits.logsumexp(-1)
    values: list[tuple[int, float]] = []
    if best:
        least = logits.topk(best, sorted=False).values.amin()
        tokens = (logits >= least).nonzero().squeeze(1)
        found = logits[tokens].sort(descending=True, stable=True)
        likeliest = tokens[found.indices[:best]]
        logs = logits[likeliest] - total
        values = list(zip(likeliest.tolist(), logs.tolist(), strict=True))
    return TokenLogprobs(float(logits[pick] - total), tuple(values))
