"""How well the head guesses, by how many tokens it has drafted since the last true feature."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gardener.draft.train.chunks import Text
from gardener.draft.train.head import DraftHead
from gardener.draft.train.objective import WEIGHT, Target, batches, passes, precision

Floats: TypeAlias = NDArray[np.float64]

DEPTHS = 10
"""Passes that are looked at."""

RANKS = 8
"""Guesses of each pass that are looked at."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Guesses and what became of them.

    log_q  [n, RANKS] natural log of the probability the head gave, likeliest first
    hit    [n, RANKS] whether this was the token that followed
    depth  [n] tokens drafted since the last true feature
    share  of the texts, as far as there was time to look at them
    """

    log_q: Tensor
    hit: Tensor
    depth: Tensor
    share: float = 1.0

    def right(self, depth: int, ranks: int) -> float:
        """Share of places at this depth where one of the first `ranks` guesses was right."""
        at = self.depth == depth
        return float(self.hit[at, :ranks].any(-1).float().mean()) if at.any() else 0.0

    def part(self, first: int, end: int) -> "Observations":
        """Some of them."""
        at = slice(first, end)
        return Observations(self.log_q[at], self.hit[at], self.depth[at])

    def flat(self) -> tuple[Floats, Floats, Floats, Floats]:
        """One entry for every guess: log q, rank, depth, hit."""
        ranks = torch.arange(RANKS).expand(self.log_q.shape)
        depth = self.depth[:, None].expand(self.log_q.shape)
        parts = (self.log_q, ranks, depth, self.hit)
        log_q, rank, deep, hit = (part.reshape(-1).double().numpy() for part in parts)
        return log_q, rank, deep, hit

    def curve(self, ranks: int) -> list[float]:
        """The same for every depth."""
        return [self.right(depth, ranks) for depth in range(DEPTHS)]


@torch.no_grad()
def observe(
    head: DraftHead,
    target: Target,
    texts: Sequence[Text],
    tokens: int,
    more: Callable[[], bool] = lambda: True,
) -> Observations:
    """What the head guesses for the answers in `texts`, in random batches of about `tokens` tokens.
    After each, `more` says whether there is time for another one."""
    log_q, hit, depth = [], [], []
    share = 1.0
    found = list(batches(texts, tokens))
    random.Random(0).shuffle(found)  # not the short ones first, if there is no time for all
    for number, batch in enumerate(found):
        if number and not more():
            share = number / len(found)
            break
        counts = (batch.weights == max(WEIGHT.values())) & (batch.next >= 0)
        with precision(target):
            done = list(passes(head, target, batch, DEPTHS))
        for k, (out, places) in enumerate(done):
            counted = counts[places]
            logits = F.linear(out[counted].to(target.matrix.dtype), target.matrix).float()
            best, guesses = torch.log_softmax(logits, -1).topk(RANKS, -1)
            log_q.append(best)
            hit.append(target.kept[guesses] == batch.next[places[counted], None])
            depth.append(torch.full((len(best),), k))
    return Observations(torch.cat(log_q), torch.cat(hit), torch.cat(depth), share)
