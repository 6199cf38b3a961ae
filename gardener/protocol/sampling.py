"""How the target's own next token is picked: settings that go round the ring with a request.

The order is that of vLLM: bias and penalties, temperature, min-p, top-k, top-p, the pick. With a
temperature the pick is `argmax(log p + g)`, where g is Gumbel noise that depends on seed, position
and token alone (Gumbel-max sampling). So the same seed gives the same text, with guesses or
without, and a guess is right if and only if it equals the pick.
"""

import random
from collections.abc import Iterator
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

MAX_BIASED = 1024
"""Most tokens that may have a bias."""

MAX_ENDS = 64
"""Most tokens that may end an answer."""

MAX_BEST = 20
"""Most of the best tokens after a row whose log probabilities may be asked for."""

LOWEST = 1e-3
"""Least temperature but 0: below it, logits become too large for their type."""

MAX_TOKEN = 2**31
"""Largest token id, and what is counted in tokens."""

MAX_SEED = 2**63 - 1
"""Largest seed."""

TokenId: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_TOKEN)]
TokenCount: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_TOKEN)]
Seed: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_SEED)]
Bias: TypeAlias = Annotated[tuple[tuple[TokenId, float], ...], Meta(max_length=MAX_BIASED)]


class Sampling(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The likeliest token, unless something else is said.

    temperature         0: no noise, always the likeliest token
    top_p               keep the likeliest tokens that together have this probability
    top_k               keep so many of the likeliest tokens; 0: all
    min_p               keep tokens that are at least this share as likely as the likeliest
    repetition_penalty  divides positive logits of tokens that stand in prompt or answer, and
                        multiplies negative ones (Keskar et al. 2019, CTRL)
    presence_penalty    taken from the logits of tokens that stand in the answer
    frequency_penalty   the same, once for each time that they stand there
    logit_bias          token and what is added to its logit
    seed                of the noise; None: not drawn yet, see `seeded`
    min_tokens          tokens of the answer before which none of `eos` is picked
    eos                 these

    Raises ValueError for what cannot be, with the field, the value and what may be.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: TokenCount = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Bias = ()
    seed: Seed | None = None
    min_tokens: TokenCount = 0
    eos: Annotated[tuple[TokenId, ...], Meta(max_length=MAX_ENDS)] = ()

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:  # so is nan refused, too
                raise ValueError(f"{name} is {value}: it lies between {low:g} and {high:g}")
        if 0 < self.temperature < LOWEST:
            raise ValueError(
                f"temperature is {self.temperature}: take 0 for no noise, or at least {LOWEST:g}"
            )
        if self.top_p == 0:
            raise ValueError("top_p is 0, which leaves no token: take more, or temperature 0")
        for name, value, most in self._integers():
            if not 0 <= value <= most:
                raise ValueError(f"{name} is {value}: it lies between 0 and {most}")
        self._check_lengths()
        for token, bias in self.logit_bias:
            if not -100 <= bias <= 100:
                raise ValueError(
                    f"logit_bias of token {token} is {bias}: it lies between -100 and 100"
                )

    def _integers(self) -> Iterator[tuple[str, int, int]]:
        """Name, value and most of each whole number."""
        yield "top_k", self.top_k, MAX_TOKEN
        yield "min_tokens", self.min_tokens, MAX_TOKEN
        if self.seed is not None:
            yield "seed", self.seed, MAX_SEED
        for token, _ in self.logit_bias:
            yield "a token of logit_bias", token, MAX_TOKEN
        for token in self.eos:
            yield "a token of eos", token, MAX_TOKEN

    def _check_lengths(self) -> None:
        tokens = [token for token, _ in self.logit_bias]
        if len(tokens) > MAX_BIASED:
            raise ValueError(f"logit_bias names {len(tokens)} tokens: take {MAX_BIASED} at most")
        if len(set(tokens)) < len(tokens):
            twice = next(token for token in tokens if tokens.count(token) > 1)
            raise ValueError(f"logit_bias names token {twice} more than once")
        if len(self.eos) > MAX_ENDS:
            raise ValueError(f"eos names {len(self.eos)} tokens: take {MAX_ENDS} at most")

    @property
    def is_greedy(self) -> bool:
        """Without noise."""
        return self.temperature == 0

    @property
    def reads_text(self) -> bool:
        """Whether a pick depends on the tokens before it otherwise than through the model."""
        return self.repetition_penalty != 1 or self.reads_answer

    @property
    def reads_answer(self) -> bool:
        """Whether it depends on those of the answer in a way of its own."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0

    @property
    def changes_nothing(self) -> bool:
        """Whether the pick is the likeliest token, whatever stands before it."""
        plain = not self.logit_bias and not self.min_tokens and not self.reads_text
        return self.is_greedy and plain

    def seeded(self) -> "Sampling":
        """The same with a seed, if noise needs one and there is none yet."""
        if self.is_greedy or self.seed is not None:
            return self
        return msgspec.structs.replace(self, seed=new_seed())


def new_seed() -> int:
    """A seed that nobody knows beforehand, short enough to be told to people."""
    return random.SystemRandom().getrandbits(32)


_RANGES = (
    ("temperature", 0.0, 100.0),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("repetition_penalty", 0.01, 100.0),
    ("presence_penalty", -100.0, 100.0),
    ("frequency_penalty", -100.0, 100.0),
)

GREEDY = Sampling()
"""The likeliest token, always."""
