"""Guesses from the text itself: what followed the last few tokens when they stood here before.

The longest suffix of the text so far (up to `longest` tokens) that occurred earlier decides; its
continuations are ranked by how often and how recently they followed, and shorter suffixes fill up.
This is prompt lookup (Saxena 2023) with several continuations, merged into one tree by the caller.

How often such guesses come true differs by text, so it is measured on the way: `HitRates` counts
hits per kind of guess, whether it was sent or not, because the true next token is known for every
accepted position. Where nothing repeats, probabilities sink and nothing is sent.

Where the target picks with noise, its noise ranks the continuations too: argmax(log share + g), see
`ranking`. There, a kind of guess also says how lucky the noise makes the token.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gardener.decoding.tree import Guess, Node
from gardener.model.noise import Noise
from gardener.protocol.messages import Tensor
from gardener.protocol.sampling import GREEDY, Sampling


class Kind(NamedTuple):
    """What a guess is like, for its hit rate.

    length  of the matching suffix
    rank    among the guesses
    single  whether only one continuation was seen
    luck    in which of `LUCKS` equal parts of the law of its noise the token's own falls, the
            highest last; None: no noise
    """

    length: int
    rank: int
    single: bool
    luck: int | None = None


LUCKS = 4

CONSIDERED = 6
"""Most continuations whose noise is looked at; it takes 10 us for each."""

PRIOR_WEIGHT = 4.0
"""How many observations the first estimate of a kind is worth."""

MEMORY = 0.97
"""An observation counts this much less with each newer one of its kind: texts change character."""


def prior(kind: Kind) -> float:
    """First estimate: longer matches and single continuations are likelier to go on.

    A token of probability p is picked if its noise beats that of all others together. With u, where
    its own noise stands in the law of such noise, that has the chance u ** ((1 - p) / p).
    """
    length, rank, single, luck = kind
    first = 1.0 - 0.75**length if single else 1.0 - 0.85**length
    chance = first if rank == 0 else 0.5 * (1.0 - first) / (rank + 1)
    if luck is None:
        return chance
    return float(((luck + 0.5) / LUCKS) ** ((1.0 - chance) / chance))


@dataclass(slots=True)
class HitRates:
    """Decayed hit rates per kind of guess."""

    _cells: dict[Kind, tuple[float, float]] = field(default_factory=dict)  # hits, trials

    def probability(self, kind: Kind) -> float:
        """How likely a guess of this kind is to come true."""
        hits, trials = self._cells.get(kind, (0.0, 0.0))
        return (hits + PRIOR_WEIGHT * prior(kind)) / (trials + PRIOR_WEIGHT)

    def observe(self, kind: Kind, hit: bool) -> None:
        """A guess of this kind came true, or did not."""
        hits, trials = self._cells.get(kind, (0.0, 0.0))
        self._cells[kind] = (hits * MEMORY + hit, trials * MEMORY + 1.0)


class NGram:
    """A drafter without a model. What it learns about its hit rates in one text serves the next."""

    name = "ngram"
    numbers = ""
    instant = True
    taps: tuple[int, ...] = ()

    def __init__(self, longest: int = 6, width: int = 3) -> None:
        if longest < 1 or width < 1:
            raise ValueError(f"longest and width start at 1, got {longest} and {width}")
        self.longest = longest
        self.width = width
        self.hit_rates = HitRates()

    def open(self, prompt: Sequence[int], sampling: Sampling = GREEDY) -> "NGramDraft":
        """See `Drafter`."""
        noise = None if sampling.is_greedy or sampling.seed is None else Noise(sampling.seed)
        return NGramDraft(prompt, self.longest, self.width, self.hit_rates, noise)


@dataclass(slots=True)
class _Follower:
    count: int = 0
    last: int = 0


class NGramDraft:
    """One text, indexed by its suffixes: `longest` entries for each token."""

    def __init__(
        self,
        prompt: Sequence[int],
        longest: int,
        width: int,
        hit_rates: HitRates,
        noise: Noise | None,
    ) -> None:
        self._longest, self._width, self._hit_rates = longest, width, hit_rates
        self._noise = noise
        self._drawn: dict[int, dict[int, float]] = {}  # noise so far, by position and token
        self._text: list[int] = []
        self._after: defaultdict[tuple[int, ...], dict[int, _Follower]] = defaultdict(dict)
        for token in prompt:
            self._append(token)

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor] = ()) -> None:
        """See `Draft`."""
        for token in (node.token for node in nodes):
            suffix = tuple(self._text[-self._longest :])
            for guess, kind in self._guesses(suffix, len(self._text)):
                self._hit_rates.observe(kind, guess == token)
            self._drawn.pop(len(self._text), None)
            self._append(token)

    def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        """See `Draft`."""
        return [self._expand([node.token for node in path[1:]]) for path in paths]

    def _expand(self, path: Sequence[int]) -> tuple[Guess, ...]:
        suffix = (*self._text[-self._longest :], *path)[-self._longest :]
        left = 1.0
        found: list[Guess] = []
        for token, kind in self._guesses(suffix, len(self._text) + len(path)):
            found.append(Guess(token, min(self._hit_rates.probability(kind), left)))
            left = max(left - found[-1].probability, 0.0)
        return tuple(found)

    def _append(self, token: int) -> None:
        at = len(self._text)
        for length in range(1, min(self._longest, at) + 1):
            followers = self._after[tuple(self._text[at - length :])]
            follower = followers.setdefault(token, _Follower())
            follower.count += 1
            follower.last = at
        self._text.append(token)

    def _guesses(self, suffix: tuple[int, ...], position: int) -> list[tuple[int, Kind]]:
        """Up to `width` tokens that followed this suffix or a shorter one, best first. They would
        stand at this position of the text."""
        if self._noise is not None:
            return self._noisy(suffix, position, self._noise)
        found: dict[int, Kind] = {}
        matched = 0
        single = False
        for length in range(len(suffix), 0, -1):
            followers = self._after.get(suffix[len(suffix) - length :])
            if not followers:
                continue
            if not matched:
                matched, single = length, len(followers) == 1
            for token in sorted(followers, key=lambda t: _rank(followers[t]), reverse=True):
                if token not in found:
                    found[token] = Kind(matched, len(found), single)
                if len(found) == self._width:
                    return list(found.items())
        return list(found.items())

    def _noisy(
        self, suffix: tuple[int, ...], position: int, noise: Noise
    ) -> list[tuple[int, Kind]]:
        shares, matched, single = self._shares(suffix)
        drawn = self._draw(position, shares, noise)
        noisy = {token: math.log(share) + drawn[token] for token, share in shares.items()}
        best = sorted(noisy, key=noisy.__getitem__, reverse=True)[: self._width]
        return [
            (token, Kind(matched, rank, single, _luck(drawn[token])))
            for rank, token in enumerate(best)
        ]

    def _shares(self, suffix: tuple[int, ...]) -> tuple[dict[int, float], int, bool]:
        """Up to `CONSIDERED` tokens that followed this suffix or a shorter one, and their estimated
        probabilities; the length that matched, and whether one token alone followed there.

        What followed n times leaves 1 / (n + 1) to shorter suffixes, as in prediction by partial
        matching (Cleary and Witten 1984, method A).
        """
        shares: dict[int, float] = {}
        matched, single, left = 0, False, 1.0
        for length in range(len(suffix), 0, -1):
            followers = self._after.get(suffix[len(suffix) - length :])
            if not followers:
                continue
            if not matched:
                matched, single = length, len(followers) == 1
            left /= 1 + sum(follower.count for follower in followers.values())
            for token in sorted(followers, key=lambda t: _rank(followers[t]), reverse=True):
                shares.setdefault(token, left * followers[token].count)
                if len(shares) == CONSIDERED:
                    return shares, matched, single
        return shares, matched, single

    def _draw(self, position: int, tokens: Iterable[int], noise: Noise) -> dict[int, float]:
        """The noise of these tokens there, and of those that were asked for before."""
        drawn = self._drawn.setdefault(position, {})
        if new := [token for token in tokens if token not in drawn]:
            drawn.update(zip(new, noise.of(position, new).tolist(), strict=True))
        return drawn


def _rank(follower: _Follower) -> tuple[int, int]:
    return follower.count, follower.last


def _luck(noise: float) -> int:
    return min(int(LUCKS * math.exp(-math.exp(-noise))), LUCKS - 1)
