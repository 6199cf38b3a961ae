"""Made-up recordings, and drafters that know them, more or less."""

from collections.abc import Sequence
from random import Random

import numpy as np
import torch

from gardener.decoding.tree import Guess, Node, Opinion
from gardener.draft.drafter import Draft
from gardener.errors import LocalError
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.protocol.tensors import Tensor
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.recording import Recording, what_counts
from gardener.rings.simulate.worker import Meter

VOCABULARY = 12
EOS = VOCABULARY
"""Ends an answer; stands nowhere else."""

TAP = 2
"""The layer of which the slow drafter wants features, which tell the place of a row."""


def answer(chance: Random, prompt: Sequence[int], tokens: int) -> list[int]:
    """Any text, that often repeats what stood before."""
    text = list(prompt)
    while len(text) < len(prompt) + tokens:
        if chance.random() < 0.5:
            begin = chance.randrange(len(text))
            phrase = text[begin : begin + chance.randint(2, 6)]
            text += [token for token in phrase if token != EOS]
        else:
            text.append(chance.randrange(VOCABULARY))
    return text[len(prompt) : len(prompt) + tokens]


def recording(prompt: Sequence[int], written: Sequence[int], sampling: Sampling) -> Recording:
    """This answer to this prompt."""
    tokens = (*prompt, *written)
    features = torch.arange(len(tokens), dtype=torch.float32)[:, None]
    return Recording(tokens, len(prompt), features, what_counts(sampling))


class Unforgetting(Library):
    """A process that died must not take away what the others play back."""

    def forget(self, request: int) -> None:
        """It does not."""


class Foreseeing:
    """A drafter that takes time and is often right. It wants features if it has `taps`, and fails
    if they are not those of the right rows."""

    name, numbers, instant = "foreseeing", "", False
    context: int | None = None

    def __init__(
        self, library: Library, meter: Meter, chance: Random, seconds: float, taps: bool
    ) -> None:
        self.taps: tuple[int, ...] = (TAP,) if taps else ()
        self.library, self.meter, self.chance, self.seconds = library, meter, chance, seconds

    def open(
        self,
        prompt: Sequence[int],
        sampling: Sampling = GREEDY,
        *,
        source: tuple[Draft | None, int] | None = None,
    ) -> "Foresight":
        """See `Drafter`."""
        self.meter.charge(self.seconds)
        first = 0
        if source is not None:
            theirs, shared = source
            if theirs is not None:
                assert isinstance(theirs, Foresight)
                if theirs.text[:shared] != list(prompt[:shared]):
                    raise LocalError("a draft was opened from one with another text")
            first = shared - 1
        return Foresight(self, prompt, sampling, first)


class Foresight:
    """See `Draft`."""

    def __init__(
        self, drafter: Foreseeing, prompt: Sequence[int], sampling: Sampling, first: int
    ) -> None:
        """`first`: the row with which features begin."""
        self.text = list(prompt)
        self._drafter, self._sampling, self._rows = drafter, sampling, first

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor]) -> None:
        """See `Draft`."""
        self.text += [node.token for node in nodes]
        if not self._drafter.taps:
            return
        for tensor in features:
            for row in np.frombuffer(tensor.data, np.float32).tolist():
                if row != self._rows:
                    raise LocalError(f"the feature of row {row:g} came for {self._rows}")
                self._rows += 1
        if nodes and self._rows != len(self.text) - 1:
            raise LocalError(f"{self._rows} features are there of {len(self.text)} tokens")

    def expand(self, paths: Sequence[Sequence[Node]]) -> Sequence[Opinion]:
        """See `Draft`."""
        self._drafter.meter.charge(self._drafter.seconds)
        return [self._opinion([*self.text, *(node.token for node in p[1:])]) for p in paths]

    def _opinion(self, text: Sequence[int]) -> Opinion:
        chance = self._drafter.chance
        known = self._drafter.library.beginning(text, self._sampling)
        guesses = {chance.randrange(VOCABULARY): 0.2}
        if known is not None and len(known.tokens) > len(text):
            guesses[known.tokens[len(text)]] = 0.7
        return tuple(Guess(t, p) for t, p in sorted(guesses.items(), key=lambda each: -each[1]))
