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
        self._counted = 0  # tokens of the text that are in these

    @staticmethod
    def needed(sampling: Sampling) -> bool:
        """Whether anything is to be changed."""
        return bool(sampling.logit_bias or sampling.min_tokens or sampling.reads_text)

    def apply(
        self, logits: Tensor, text: Sequence[int], prompt: int, paths: Sequence[Sequence[int]]
    ) -> Tensor:
        """New logits [rows, places], float32. See `ranking.Ranking.best`."""
        logits = logits + self._added
        early = [
            row
            for row, path in enumerate(paths)
            if len(text) - prompt + len(path) < self._sampling.min_tokens
        ]
        if early and self._ends:
            logits[torch.tensor(early)[:, None], torch.tensor(self._ends)] = -torch.inf
        return self._penalised(logits, text, prompt, paths) if self._sampling.reads_text else logits

    def _penalised(
        self, logits: Tensor, text: Sequence[int], prompt: int, paths: Sequence[Sequence[int]]
    ) -> Tensor:
        self._count(text, prompt)
        seen, times = self._seen[None], self._times[None]
        on_paths = [self._places(path) for path in paths]
        if any(on_paths):
            rows = [row for row, places in enumerate(on_paths) for _ in places]
            at = (torch.tensor(rows), torch.tensor([p for places in on_paths for p in places]))
            seen, times = seen.repeat(len(paths), 1), times.repeat(len(paths), 1)
            seen[at] = True
            times.index_put_(at, times.new_ones(()), accumulate=True)
        ask = self._sampling
        factor = ask.repetition_penalty
        if factor != 1:
            weaker = torch.where(logits > 0, logits / factor, logits * factor)
            logits = torch.where(seen, weaker, logits)
        if ask.reads_answer:
            logits = logits - ask.frequency_penalty * times - ask.presence_penalty * (times > 0)
        return logits

    def _count(self, text: Sequence[int], prompt: int) -> None:
        """Take in the tokens that are new in the text."""
        new = self._places(text[self._counted :])
        answered = self._places(text[max(self._counted, prompt) :])
        self._seen[new] = True
        self._times += torch.bincount(
            torch.tensor(answered, dtype=torch.int64), minlength=len(self._times)
        ).to(self._times.device)
        self._counted = len(text)

    def _places(self, tokens: Iterable[int]) -> list[int]:
        """Of the logits of these tokens; those that the network never guesses have none."""
        return [self._place[token] for token in tokens if token in self._place]
