"""What tokens lose because they stand in the text already.

Every row of a token tree has a text of its own: the text that is certain, and its path through the
tree. What the certain text holds is counted once, as it grows; a row adds the few tokens of its
path.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gardener.protocol.sampling import Sampling


class Penalties:
    """Those of one request, with the counts of its text. For one thread."""

    def __init__(self, sampling: Sampling, prompt: int) -> None:
        """`prompt`: tokens that are not of the answer."""
        self._repetition = sampling.repetition_penalty
        self._presence = sampling.presence_penalty
        self._frequency = sampling.frequency_penalty
        self._prompt = prompt
        self._read = 0  # tokens of the certain text that were counted
        self._places: dict[int, int] = {}  # of each token that stands in it, in what follows
        self._tokens = np.zeros(256, np.int64)
        self._counts = np.zeros(256, np.float32)  # how often in the answer

    def apply(
        self, scores: Tensor, text: Sequence[int], certain: int, paths: Sequence[Sequence[int]]
    ) -> None:
        """Change the logits [rows, vocabulary], float32, in place.

        text, certain  the text before the tree: the first `certain` of these tokens, never fewer
                       than in the call before
        paths          by row, the tokens that follow these: all of the answer
        """
        self._count(text, certain)
        rows, tokens, counts = self._on_paths(paths)
        own = self._penalised(scores[rows, tokens], counts.to(scores.device))
        held = len(self._places)
        known = torch.from_numpy(self._tokens[:held]).to(scores.device)
        common = torch.from_numpy(self._counts[:held]).to(scores.device)
        scores[:, known] = self._penalised(scores[:, known], common)
        scores[rows, tokens] = own

    def _penalised(self, logits: Tensor, counts: Tensor) -> Tensor:
        """Of tokens that stand in the text, and so many times in the answer."""
        if self._repetition != 1:
            divided, multiplied = logits / self._repetition, logits * self._repetition
            logits = torch.where(logits > 0, divided, multiplied)
        return logits - self._frequency * counts - self._presence * (counts > 0)

    def _count(self, text: Sequence[int], end: int) -> None:
        for position in range(self._read, end):
            place = self._places.setdefault(text[position], len(self._places))
            if place == len(self._tokens):
                self._tokens = np.pad(self._tokens, (0, place))
                self._counts = np.pad(self._counts, (0, place))
            self._tokens[place] = text[position]
            self._counts[place] += position >= self._prompt
        self._read = max(self._read, end)

    def _on_paths(self, paths: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Row and token of each token that stands on the path of a row, and its count there and in
        the certain text."""
        found = [
            (row, token, self._before(token) + count)
            for row, path in enumerate(paths)
            for token, count in Counter(path).items()
        ]
        rows, tokens, counts = zip(*found, strict=True) if found else ((), (), ())
        return (
            torch.tensor(rows, dtype=torch.int64),
            torch.tensor(tokens, dtype=torch.int64),
            torch.tensor(counts, dtype=torch.float32),
        )

    def _before(self, token: int) -> float:
        place = self._places.get(token)
        return 0.0 if place is None else float(self._counts[place])
