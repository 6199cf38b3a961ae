"""A text that nobody wrote, and a drafter that guesses it as often as it is told to.

Where the target model is too large to be asked what it writes, somebody has to say how often a
guess comes true: `right`, the chance that the likeliest guess at a place is the target's token, the
same at all places, however far ahead. Of the rest, a second guess gets two fifths and a third one
three twentieths. The drafter says these chances of its guesses, so it is as well calibrated as can
be; on a branch that is not the text it guesses nonsense, and as sure of itself.
"""

from collections.abc import Sequence
from random import Random

import torch

from gardener.decoding.curves import Curve
from gardener.decoding.tree import Guess, Node
from gardener.draft.drafter import Draft
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.protocol.tensors import Tensor
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.recording import Recording
from gardener.rings.simulate.worker import Meter

TOKENS = 2**15
"""Tokens that there are."""

SECOND, THIRD = 0.4, 0.15
"""Shares of what the likeliest guess leaves."""

PROMPT = 64
"""Tokens of a prompt."""


def made_up(texts: int, new_tokens: int, tap: int) -> Library:
    """Texts with prompts of `PROMPT` tokens and a token more than `new_tokens`; the same ones each
    time. None ends before."""
    return Library((_text(number, new_tokens) for number in range(texts)), (tap,))


def prompts(library_of: int, new_tokens: int) -> list[tuple[int, ...]]:
    """Those of so many texts."""
    texts = (_text(number, new_tokens) for number in range(library_of))
    return [text.tokens[: text.prompt] for text in texts]


def _text(number: int, new_tokens: int) -> Recording:
    chance = Random(number)
    tokens = tuple(chance.randrange(TOKENS) for _ in range(PROMPT + new_tokens + 1))
    return Recording(tokens, PROMPT, torch.zeros(len(tokens), 1))


class MadeUpDrafter:
    """Guesses what the texts of a library say, right as often as `right` says."""

    name, numbers, context = "assumed", "", None
    instant = False
    taps: tuple[int, ...] = ()

    def __init__(self, library: Library, right: float) -> None:
        self.library, self.chances = library, chances(right)
        self._curve, self._meter = Curve(((1, 0.0),)), Meter()

    def meter(self, curve: Curve, meter: Meter) -> None:
        """From now on, charge a pass by its rows."""
        self._curve, self._meter = curve, meter

    def charge(self, rows: int) -> None:
        """Charge a pass of so many rows."""
        self._meter.charge(self._curve(rows))

    def open(
        self,
        prompt: Sequence[int],
        sampling: Sampling = GREEDY,
        *,
        source: tuple[Draft | None, int] | None = None,
    ) -> "MadeUpDraft":
        """See `Drafter`."""
        text = self.library.get(prompt, sampling)
        return MadeUpDraft(self, text.tokens if text else tuple(prompt), len(prompt))


class MadeUpDraft:
    """One text. See `Draft`."""

    def __init__(self, drafter: MadeUpDrafter, tokens: Sequence[int], known: int) -> None:
        """`known`: how many of these tokens are certain; the last of them is the root."""
        self._drafter, self._tokens, self._known = drafter, tokens, known

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        """See `Draft`."""
        self._known += len(nodes)

    def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        """See `Draft`."""
        self._drafter.charge(len(paths))
        return [self._guesses([node.token for node in path]) for path in paths]

    def _guesses(self, path: Sequence[int]) -> tuple[Guess, ...]:
        """What may follow a path, which begins with the root."""
        place = self._known - 1 + len(path)  # of what follows
        on_it = list(self._tokens[self._known - 1 : place]) == list(path)
        chance, chances = Random(f"{place}/{path}"), self._drafter.chances
        named = [chance.randrange(TOKENS) for _ in chances]
        if on_it and place < len(self._tokens):
            true, drawn = self._tokens[place], Random(f"{place}/{self._tokens[place]}").random()
            named = [token + (token == true) for token in named]
            for rank, share in enumerate(chances):
                if drawn < share:
                    named[rank] = true
                    break
                drawn -= share
        guesses = dict(zip(named, chances, strict=True))  # each token once
        return tuple(Guess(token, share) for token, share in guesses.items())


def chances(right: float) -> tuple[float, float, float]:
    """Of the three guesses at a place."""
    return right, SECOND * (1 - right), THIRD * (1 - right)
