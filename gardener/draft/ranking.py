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

import torch
from torch import Tensor

from gardener.draft.logit_changes import LogitChanges
from gardener.model.noise import Noise
from gardener.protocol.sampling import Sampling

LOOKED_AT = 64
"""Likeliest tokens that are looked at where top-p, top-k or min-p cut the rest off. They may leave
more to the target, but among so many, guesses are hardly ever right."""

LEAST = -20.0
"""Least log of a guess's probability, which those get that cannot be: below it there is nothing to
calibrate."""


class Ranking:
    """Ranks the guesses at one text. Without a seed in `sampling`, nothing is known of the noise.

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

        logits  [rows, places] of the network; they may be overwritten, for a matrix of this size
                is not copied for nothing
        text    all certain tokens
        paths   for each row, the tokens below the root that lead to it
        """
        logits = logits.float()
        places: Tensor | None = None
        if LogitChanges.needed(self._sampling):
            self._changed(logits).apply(logits, text, self._prompt, paths)
        if self._noise is not None:
            positions = [len(text) + len(path) for path in paths]
            rows = self._drawn(self._noise, positions, logits)
            logits, places = self._left(logits)
            self._add(logits, places, rows)
        log_q, best = torch.log_softmax(logits, -1).topk(min(count, logits.shape[-1]), -1)
        best = best if places is None else places.gather(1, best)
        return named(best, self._tokens), self.bounded(log_q)

    @property
    def plain(self) -> bool:
        """Whether the best guesses are those that are likeliest under the network's own law."""
        return self._noise is None and not LogitChanges.needed(self._sampling)

    def bounded(self, log_q: Tensor) -> Tensor:
        """What `likeliest` says to what `best` says. In place."""
        return log_q if self._sampling.changes_nothing else log_q.clamp_(min=LEAST)

    def _changed(self, logits: Tensor) -> LogitChanges:
        if self._changes is None:
            self._changes = LogitChanges(
                self._sampling, self._tokens, logits.shape[-1], logits.device
            )
        return self._changes

    def _left(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits by the temperature, and their places: of the likeliest tokens, without those that
        min-p, top-k and top-p cut. Without such cuts, all: None."""
        ask = self._sampling
        if ask.temperature != 1:
            logits /= ask.temperature
        if not (ask.min_p or ask.top_k or ask.top_p < 1):
            return logits, None
        top, places = torch.log_softmax(logits, -1).topk(min(LOOKED_AT, logits.shape[-1]), -1)
        odds = top.exp()
        kept = odds >= ask.min_p * odds[:, :1]
        if ask.top_k:
            kept[:, ask.top_k :] = False
        whole = torch.where(kept[:, -1:], 1.0, (odds * kept).sum(-1, keepdim=True))
        kept &= odds.cumsum(-1) - odds < ask.top_p * whole
        return top.masked_fill_(~kept, -torch.inf), places

    def _add(self, logits: Tensor, places: Tensor | None, noise: Sequence[Tensor]) -> None:
        """Add its noise to each row, and multiply by the temperature."""
        add = row_by_row if logits.device.type == "cpu" else at_once
        add(logits, places, noise)
        if self._sampling.temperature != 1:
            logits *= self._sampling.temperature

    def _drawn(self, noise: Noise, positions: Sequence[int], logits: Tensor) -> list[Tensor]:
        """The noise of the token of each logit, at these positions. Whole rows take as long as
        fifty tokens would, and are kept for other nodes at the same position."""
        places, device = logits.shape[-1], logits.device
        rows = {each: self._row(noise, each, places) for each in set(positions)}
        if device.type != "cpu":  # in one copy, for each would wait
            rows = dict(zip(rows, torch.stack(list(rows.values())).to(device), strict=True))
        return [rows[position] for position in positions]

    def _row(self, noise: Noise, position: int, places: int) -> Tensor:
        if self._numbers is None:
            return torch.from_numpy(noise.row(position, places))
        return torch.from_numpy(noise.row(position, int(self._numbers.max()) + 1)[self._numbers])


def row_by_row(logits: Tensor, places: Tensor | None, noise: Sequence[Tensor]) -> None:
    """Add to each row of logits its noise, one for each token, or that of the tokens in `places`.
    On the CPU a matrix of all of it would take longer."""
    for row, drawn in enumerate(noise):
        logits[row] += drawn if places is None else drawn[places[row]]


def at_once(logits: Tensor, places: Tensor | None, noise: Sequence[Tensor]) -> None:
    """The same in few operations: on a device, it is their number that takes time."""
    drawn = torch.stack(list(noise))
    logits += drawn if places is None else drawn.gather(1, places)


def likeliest(logits: Tensor, count: int, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
    """What `Ranking.best` gives where it is `plain`, but for `Ranking.bounded`. `tokens`: of the
    logits, see `Ranking`. It waits for nothing."""
    log_q, best = torch.log_softmax(logits.float(), -1).topk(min(count, logits.shape[-1]), -1)
    return named(best, tokens), log_q


def named(places: Tensor, tokens: Tensor | None) -> Tensor:
    """The tokens of these logits."""
    return places if tokens is None else tokens[places]


def fetched(tokens: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Both in this machine's memory. From a device in one copy, for each waits for it."""
    return (tokens, log_q) if log_q.device.type == "cpu" else apart(together(tokens, log_q).cpu())


def together(tokens: Tensor, log_q: Tensor) -> Tensor:
    """[2, rows, count] float32, in which numbers of tokens are whole up to 2**24."""
    return torch.stack((tokens.float(), log_q))


def apart(both: Tensor) -> tuple[Tensor, Tensor]:
    """What was put `together`."""
    return both[0].long(), both[1]
