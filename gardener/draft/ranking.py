"""Guesses in the order in which the target would pick: with its own noise.

With a temperature T the target picks argmax(log p + T g), where g is noise that seed, position and
token determine (`model.noise`). A guess is right if it equals the pick, so what is likeliest under
the draft's own law q says little: the best guess is argmax(log q + T g), with the same g. Where q
equals p that is the pick itself (Daliri et al. 2024, arXiv 2408.07978: drafter-invariant
speculation).

How far log q is from log p does not depend on T. So the logs of softmax(log q + T g) are to the
noisy pick what those of q are to the likeliest token, and `calibration` reads them alike.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gardener.draft.logit_changes import LogitChanges
from gardener.model.noise import Floats32, Noise
from gardener.protocol.sampling import Sampling

LOOKED_AT = 64
"""Likeliest tokens among which top-p and top-k look for their last one; further down they cut
nothing that is guessed."""

LEAST = -20.0
"""Least log of a guess's probability, which those get that cannot be: below it there is nothing to
calibrate."""


class Ranking:
    """Ranks the guesses at one text.

    tokens  [places] the token of each logit; None: they are numbered as the target's
    prompt  so many tokens of the text are the prompt's
    """

    def __init__(self, sampling: Sampling, tokens: Tensor | None, prompt: int) -> None:
        self._sampling, self._tokens, self._prompt = sampling, tokens, prompt
        self._noise = None if sampling.seed is None or sampling.is_greedy else Noise(sampling.seed)
        self._numbers = None if tokens is None else tokens.cpu().numpy()
        self._changes: LogitChanges | None = None  # made with the first logits, if needed

    def best(
        self, logits: Tensor, count: int, text: Sequence[int], paths: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:
        """Tokens [rows, count], best first, and the natural logs of their probabilities.

        logits  [rows, places] of the network
        text    all certain tokens
        paths   for each row, the tokens below the root that lead to it
        """
        logits = logits.float()
        if LogitChanges.needed(self._sampling):
            logits = self._changed(logits).apply(logits, text, self._prompt, paths)
        if self._noise is not None:
            logits = self._noisy(logits, self._noise, [len(text) + len(path) for path in paths])
        log_q, places = torch.log_softmax(logits, -1).topk(min(count, logits.shape[-1]), -1)
        named = places if self._tokens is None else self._tokens[places]
        return named, log_q if self._sampling.changes_nothing else log_q.clamp_(min=LEAST)

    def _changed(self, logits: Tensor) -> LogitChanges:
        if self._changes is None:
            self._changes = LogitChanges(
                self._sampling, self._tokens, logits.shape[-1], logits.device
            )
        return self._changes

    def _noisy(self, logits: Tensor, noise: Noise, positions: Sequence[int]) -> Tensor:
        """log q + T g, shifted by some number per row."""
        temperature = self._sampling.temperature
        distinct = sorted(set(positions))
        rows = [self._row(noise, position, logits.shape[-1]) for position in distinct]
        drawn = torch.from_numpy(np.stack(rows)).to(logits.device)
        if len(distinct) > 1:
            drawn = drawn[[distinct.index(position) for position in positions]]
        noisy = logits.add(drawn, alpha=temperature)
        lowest = self._lowest(logits)
        return noisy if lowest is None else noisy.masked_fill_(logits < lowest, -torch.inf)

    def _row(self, noise: Noise, position: int, places: int) -> Floats32:
        """The noise of the token of each logit. The whole row at once is as fast as that of fifty
        tokens, and is kept for the other nodes at this position."""
        if self._numbers is None:
            return noise.row(position, places)
        row: Floats32 = noise.row(position, int(self._numbers.max()) + 1)[self._numbers]
        return row

    def _lowest(self, logits: Tensor) -> Tensor | None:
        """[rows, 1]: the least logit that min-p, top-k and top-p leave. None: they leave all."""
        ask = self._sampling
        if not (ask.min_p or ask.top_k or ask.top_p < 1):
            return None
        top = logits.topk(min(LOOKED_AT, logits.shape[-1]), -1).values
        whole = torch.logsumexp(logits / ask.temperature, -1, keepdim=True)
        odds = (top / ask.temperature - whole).exp()
        kept = odds >= ask.min_p * odds[:, :1]
        if ask.top_k:
            kept[:, ask.top_k :] = False
        left = torch.where(kept[:, -1:], 1.0, (odds * kept).sum(-1, keepdim=True))
        kept &= odds.cumsum(-1) - odds < ask.top_p * left
        lowest = top.masked_fill(~kept, torch.inf).amin(-1, keepdim=True)
        return lowest.masked_fill(kept[:, -1:], -torch.inf)
