"""What a one-pass head has computed of one text: the context, and the last block behind it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from gardener.draft.block import BlockNetwork
from gardener.draft.ranking import Ranking, fetched
from gardener.errors import LocalError
from gardener.model.kv_cache import KVCache


class Context:
    """What the layers see of the first `known` tokens of one text."""

    def __init__(self, network: BlockNetwork) -> None:
        self._network = network
        self.cache: KVCache = network.cache()
        self.known = 0
        self._outputs: Tensor | None = None  # [levels, width], of the last block

    def lane(self) -> AbstractContextManager[object]:
        """See `ComputedRows`."""
        return nullcontext()

    def add(self, features: Tensor) -> None:
        """Of the next tokens, [tokens, taps * width], on the CPU."""
        self._network.context(self.cache, features.to(self._network.device), self.known)
        self.known += len(features)

    def block(self, anchor: int) -> None:
        """Compute the block behind this token, the one after those that are known."""
        self._outputs = self._network.block(self.cache, anchor, self.known)

    def best(
        self,
        levels: Sequence[int],
        before: Sequence[int],
        ranking: Ranking,
        count: int,
        text: Sequence[int],
        paths: Sequence[Sequence[int]],
    ) -> tuple[Tensor, Tensor]:
        """Guesses out of the last block, so many levels below the anchor, after the tokens
        `before`; see `Ranking.best`. On the CPU."""
        if self._outputs is None:
            raise LocalError("something is asked of a block that is not there")
        logits = self._network.logits(self._outputs[levels], torch.tensor(before))
        return fetched(*ranking.best(logits, count, text, paths))

    @torch.inference_mode()
    def beginning(self, tokens: int) -> "Context":
        """A copy of that of the first tokens."""
        copy = Context(self._network)
        copy.cache.copy(self.cache, np.arange(tokens))
        copy.known = tokens
        return copy
