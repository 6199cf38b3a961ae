"""Guesses from the text itself: what followed the last few tokens when they stood here before.

The longest suffix of the text so far (up to `longest` tokens) that occurred earlier decides; its
continuations are ranked by how often and how recently they followed, and shorter suffixes fill up.
This is prompt lookup (Saxena 2023) with several continuations, merged into one tree by the caller.

How often such guesses come true differs by text, so it is measured on the way: `HitRates` counts
hits per kind of guess, whether it was sent or not, because the true next token is known for every
accepted position. Where nothing repeats, probabilities sink and nothing is sent.

It makes nothing of the noise with which the target picks, though other drafters do (`ranking`). A
text goes on as before or it does not: where it does, the target is nearly sure, and the noise has
no say; where it does not, no share of what followed tells of the target's. With the noise it
guessed as many tokens and was less sure of itself (`benchmarks.shared_noise`).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from gardener.decoding.tree import Guess, Node
from gardener.draft.drafter import Draft
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.protocol.tensors import Tensor

Kind = tuple[int, int, bool]
"""Length of the matching suffix, rank among the guesses, whether only one continuation was seen."""

PRIOR_WEIGHT = 4.0
"""How many observations the first estimate of a kind is worth."""

MEMORY = 0.97
"""An observation counts this much less with each newer one of its kind: texts change character."""


def prior(kind: Kind) -> float:
    """First estimate: longer matches and single continuations are likelier to go on."""
    length, rank, single = kind
    first = 1.0 - 0.75**length if single else 1.0 - 0.85**length
    return first if rank == 0 else 0.5 * (1.0 - first) / (rank + 1)


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
    context: int | None = None
    taps: tuple[int, ...] = ()

    def __init__(self, longest: int = 6, width: int = 3) -> None:
        if longest < 1 or width < 1:
            raise ValueError(f"longest and width start at 1, got {longest} and {width}")
        self.longest = longest
        self.width = width
        self.hit_rates = HitRates()

    def open(
        self,
        prompt: Sequence[int],
        sampling: Sampling = GREEDY,
        *,
        source: tuple[Draft | None, int] | None = None,
    ) -> "NGramDraft":
        """See `Drafter`; the same for any sampling. The text is read anew: to copy an index
        takes as long."""
        return NGramDraft(prompt, self.longest, self.width, self.hit_rates)


@dataclass(slots=True)
class _Follower:
    count: int = 0
    last: int = 0


class NGramDraft:
    """One text, indexed by its suffixes: `longest` entries for each token."""

    def __init__(
        self, prompt: Sequence[int], longest: int, width: int, hit_rates: HitRates
    ) -> None:
        self._longest, self._width, self._hit_rates = longest, width, hit_rates
        self._text: list[int] = []
        self._after: defaultdict[tuple[int, ...], dict[int, _Follower]] = defaultdict(dict)
        for token in prompt:
            self._append(token)

    def settle(self, nodes: Sequence[Node], features: Sequence[Tensor] = ()) -> None:
        """See `Draft`."""
        for token in (node.token for node in nodes):
            for guess, kind in self._guesses(tuple(self._text[-self._longest :])):
                self._hit_rates.observe(kind, guess == token)
            self._append(token)

    def expand(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        """See `Draft`."""
        return [self._expand([node.token for node in path[1:]]) for path in paths]

    def _expand(self, path: Sequence[int]) -> tuple[Guess, ...]:
        suffix = (*self._text[-self._longest :], *path)[-self._longest :]
        left = 1.0
        found: list[Guess] = []
        for token, kind in self._guesses(suffix):
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

    def _guesses(self, suffix: tuple[int, ...]) -> list[tuple[int, Kind]]:
        """Up to `width` tokens that followed this suffix or a shorter one, best first."""
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
                    found[token] = (matched, len(found), single)
                if len(found) == self._width:
                    return list(found.items())
        return list(found.items())


def _rank(follower: _Follower) -> tuple[int, int]:
    return follower.count, follower.last
