"""What follows a text by given logits, as the last stage would pick it, and by how much."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from gardener.errors import UserError
from gardener.model.noise import Noise
from gardener.model.sampler import Picking, Sampler
from gardener.model.shortlist import Shortlist, shortens
from gardener.protocol.sampling import Sampling


class Chosen(NamedTuple):
    """A token, and how far the second best one was behind it: see `Comparison.gap`."""

    token: int
    gap: float


Pick = Callable[[Sequence[int], Tensor], Chosen]
"""Given the text so far, with the prompt, and the logits [vocabulary] after it: what follows."""


class Scores(NamedTuple):
    """Of all tokens [vocabulary]: logits by the temperature, with what is added and taken, without
    and with the noise of the place."""

    plain: Tensor
    noisy: Tensor


def scorer(sampling: Sampling, prompt: int) -> Callable[[Sequence[int], Tensor], Scores]:
    """How a request with these settings scores tokens after a prompt of so many, given the same as
    a `Pick`. Raises ValueError for noise without a seed."""
    sampler = Sampler(sampling, prompt)
    noise = None
    if not sampling.is_greedy and sampling.seed is not None:
        noise = Noise(sampling.seed)

    def score(text: Sequence[int], logits: Tensor) -> Scores:
        place = len(text)  # of the token that is picked
        scores = sampler.scores(logits[None], Picking(sampler, (place,), text, place, ((),)))[0]
        if noise is None:
            return Scores(scores, scores)
        return Scores(scores, scores + scores.new_tensor(noise.row(place, len(scores))))

    return score


def picker(sampling: Sampling, prompt: int) -> Pick:
    """How a request with these settings picks after a prompt of so many tokens: as the last stage
    does. Raises ValueError for noise without a seed. Picking raises UserError after logits that are
    no numbers."""
    sampler, score = Sampler(sampling, prompt), scorer(sampling, prompt)

    def pick(text: Sequence[int], logits: Tensor) -> Chosen:
        place = len(text)  # of the token that is picked
        picking = Picking(sampler, (place,), text, place, ((),))
        (token,) = sampler.pick(logits[None], picking).tokens
        if not math.isfinite(float(logits[token])):
            raise UserError(
                f"the logits after token {place - 1} of the text are no numbers: where hidden "
                "states are too large for float16, --dtype bfloat16 or float32 helps"
            )
        scores, noisy = score(text, logits)
        return Chosen(token, float(noisy[token]) - _second(noisy, scores, token, sampling))

    return pick


def _second(noisy: Tensor, scores: Tensor, first: int, sampling: Sampling) -> float:
    """The highest score with noise, but that of the pick, among the tokens [vocabulary] that min-p,
    top-k and top-p leave; -inf if these leave no other."""
    rest = noisy.clone()
    rest[first] = -math.inf
    token, top = int(rest.argmax()), float(scores.amax())
    if sampling.is_greedy or not shortens(sampling) or not math.isfinite(top):
        return float(rest[token])
    shortlist = Shortlist(scores, top, sampling)
    while float(rest[token]) > -math.inf and not shortlist.keeps(float(scores[token])):
        rest = rest.masked_fill(scores <= scores[token], -math.inf)  # what is left stands higher
        token = int(rest.argmax())
    return float(rest[token])
