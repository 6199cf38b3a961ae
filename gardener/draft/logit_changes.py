"""What the target does to its logits before it picks, done to those of a draft network.

A bias, ends that may not come yet, and penalties for tokens that the text has already, each node's
own path included. Order and formulas are vLLM's. A network whose logits lie higher or lower than
the target's gets a repetition penalty that is too strong or too weak; that costs speed, no more.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gardener.protocol.sampling import Sampling


class LogitChanges:
    """For one text. `tokens`: see `ranking.Ranking`; `places`: how many logits there are."""

    def __init__(
        self, sampling: Sampling, tokens: Tensor | None, places: int, device: torch.device
    ) -> None:
        self._sampling = sampling
        named = range(places) if tokens is None else tokens.tolist()
        self._place = {token: place for place, token in enumerate(named)}
        self._added = torch.zeros(places, device=device)
        for token, bias in sampling.logit_bias:
            if token in self._place:
                self._added[self._place[token]] = bias
        self._ends = self._places(sampling.eos)
        self._seen = torch.zeros(places, dtype=torch.bool, device=device)  # in the text
        self._times = torch.zeros(places, device=device)  # in the answer
        self._known = torch.zeros(0, dtype=torch.long, device=device)  # places of those seen
        self._counted = 0  # tokens of the text that are in these

    @staticmethod
    def needed(sampling: Sampling) -> bool:
        """Whether anything is to be changed."""
        return bool(sampling.logit_bias or sampling.min_tokens or sampling.reads_text)

    def apply(
        self, logits: Tensor, text: Sequence[int], prompt: int, paths: Sequence[Sequence[int]]
    ) -> None:
        """In place, to float32 [rows, places]. See `ranking.Ranking.best`."""
        if self._sampling.logit_bias:
            logits += self._added
        early = [
            row
            for row, path in enumerate(paths)
            if len(text) - prompt + len(path) < self._sampling.min_tokens
        ]
        if early and self._ends:
            logits[torch.tensor(early)[:, None], torch.tensor(self._ends)] = -torch.inf
        if self._sampling.reads_text:
            self._count(text, prompt)
            self._penalise(logits, [self._places(path) for path in paths])

    def _penalise(self, logits: Tensor, paths: Sequence[Sequence[int]]) -> None:
        """`paths`: places of the tokens on each. Only logits of tokens that are somewhere in text
        or paths are looked at."""
        device = logits.device
        rows = torch.tensor([row for row, path in enumerate(paths) for _ in path], dtype=torch.long)
        places = torch.tensor([place for path in paths for place in path], dtype=torch.long)
        rows, places = rows.to(device), places.to(device)
        columns = torch.unique(torch.cat((self._known, places)))  # sorted
        at = rows, torch.searchsorted(columns, places)
        seen = self._seen[columns].repeat(len(paths), 1)
        times = self._times[columns].repeat(len(paths), 1)
        seen[at] = True
        times.index_put_(at, times.new_ones(()), accumulate=True)
        ask, part = self._sampling, logits[:, columns]
        factor = ask.repetition_penalty
        weaker = torch.where(part > 0, part / factor, part * factor)
        part = torch.where(seen, weaker, part)
        part -= ask.frequency_penalty * times + ask.presence_penalty * (times > 0)
        logits[:, columns] = part

    def _count(self, text: Sequence[int], prompt: int) -> None:
        """Take in the tokens that are new in the text."""
        if self._counted == len(text):
            return
        answered = torch.tensor(self._places(text[max(self._counted, prompt) :]), dtype=torch.long)
        times = torch.bincount(answered, minlength=len(self._times))
        self._seen[self._places(text[self._counted :])] = True
        self._times += times.to(self._times.device)
        self._known = self._seen.nonzero().squeeze(1)
        self._counted = len(text)

    def _places(self, tokens: Iterable[int]) -> list[int]:
        """Of the logits of these tokens; those that the network never guesses have none."""
        return [self._place[token] for token in tokens if token in self._place]
