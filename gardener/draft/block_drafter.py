"""A drafter from a one-pass head: one pass for each new root, and all levels below it are known.

When tokens are accepted and their features have come, the features join the context, and one block
behind the new root says what may follow it, and what may follow anything that stands up to
`levels` tokens below it. Questions about nodes of the tree then cost a row of the output matrix.

What this does not do: it does not guess beyond its block.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TypeAlias

import torch
from torch import Tensor

from gardener.decoding.tree import Guess, Node, Opinion
from gardener.draft.block import BlockNetwork
from gardener.draft.block_context import Context
from gardener.draft.calibration import Calibration
from gardener.draft.device.blocks import RecordedBlocks, RecordedContext
from gardener.draft.drafter import Draft
from gardener.draft.incremental import AT_ONCE, NoGuesses
from gardener.draft.predictions import Predictions
from gardener.draft.ranking import Ranking
from gardener.errors import LocalError, RemoteError
from gardener.model.device.graphs import Recorder
from gardener.model.tensors import unpack
from gardener.protocol import tensors
from gardener.protocol.sampling import GREEDY, Sampling

AnyContext: TypeAlias = Context | RecordedContext
"""What is computed of one text."""


class BlockDrafter:
    """A drafter from a network, which all its drafts share, as they do the calibration. `width`:
    most guesses at one place. `numbers`, `recorder`: see `Incremental`."""

    instant = False

    def __init__(
        self,
        network: BlockNetwork,
        calibration: Calibration,
        width: int = 8,
        numbers: str = "",
        recorder: Recorder | None = None,
    ) -> None:
        self.name, self.taps = network.name, network.taps
        self.numbers = numbers or str(network.dtype).removeprefix("torch.")
        self.network, self.calibration, self._width = network, calibration, width
        self._recorded = None if recorder is None else RecordedBlocks(network, recorder, width)

    @property
    def context(self) -> int:
        """See `Drafter`."""
        return self.network.parts.shape.context

    def open(
        self,
        prompt: Sequence[int],
        sampling: Sampling = GREEDY,
        *,
        source: tuple[Draft | None, int] | None = None,
    ) -> Draft:
        """See `Drafter`."""
        with nullcontext() if self._recorded is None else self._recorded.lane():
            known = self._known(source, len(prompt))
        if known is None:  # features of what is shared will never come
            return NoGuesses()
        return BlockDraft(self.network, self.calibration, self._width, prompt, sampling, known)

    def _known(self, source: tuple[Draft | None, int] | None, prompt: int) -> AnyContext | None:
        """What is known of a text to begin with: all but the last of the tokens that it shares
        with another one, with which its own features begin. None: it cannot be had."""
        there, tokens = source or (None, 1)
        if tokens == 1:
            return self._begun(prompt)
        known = there.context(tokens - 1) if isinstance(there, BlockDraft) else None
        return known and known.beginning(tokens - 1)

    def _begun(self, prompt: int) -> AnyContext:
        """Of a text with so many tokens, of which nothing is known."""
        if self._recorded is not None and self._recorded.network is self.network:
            return self._recorded.open(prompt)
        return Context(self.network)


class BlockDraft:
    """One text, and the last block that was computed for it."""

    def __init__(
        self,
        network: BlockNetwork,
        calibration: Calibration,
        width: int,
        prompt: Sequence[int],
        sampling: Sampling,
        context: AnyContext,
    ) -> None:
        self._network, self._width = network, width
        self._tokens = list(prompt)  # the certain text
        self._root = len(prompt) - 1  # id of its last token's node
        self._ranking = Ranking(sampling, network.tokens, len(prompt))
        self._predictions = Predictions(calibration)
        self._context = context
        self._features: list[Tensor] = []  # of tokens that are not in the context yet
        self._blocked = False  # whether the block behind the root is computed

    # --- the protocol ------------------------------------------------------------------------

    def settle(self, nodes: Sequence[Node], features: Sequence[tensors.Tensor]) -> None:
        """See `Draft`."""
        due = len(self._network.taps)
        if len(features) != due:
            raise RemoteError(f"features of {len(features)} taps came, {due} were asked")
        if features[0].shape[0]:
            parts = [unpack(tensor) for tensor in features]
            wide = torch.cat(parts, -1).to(self._network.dtype)
            self._features += torch.split(wide, AT_ONCE)
        for node in nodes:
            self._predictions.learn(node)
            self._tokens.append(node.token)
            self._root = node.id
        if nodes:
            self._blocked = False
            self._predictions.keep(range(self._root, sys.maxsize))  # older ones are dead

    def expand(self, paths: Sequence[Sequence[Node]]) -> Sequence[Opinion]:
        """See `Draft`."""
        with self._context.lane(), torch.inference_mode():
            self._catch_up()
            if self._context.known < len(self._tokens) - 1:
                return [None for _ in paths]
            asked = paths[0][0].id
            if asked != self._root:
                raise LocalError(f"asked about root {asked}, but {self._root} is the root")
            near = [path for path in paths if len(path) <= self._network.levels]
            guesses = iter(self._guess(near) if near else ())
            return [next(guesses) if len(path) <= self._network.levels else () for path in paths]

    def context(self, tokens: int) -> AnyContext | None:
        """Its context, once that of the first `tokens` is there; None: it cannot be yet."""
        with torch.inference_mode():
            self._catch_up()
        return self._context if self._context.known >= tokens else None

    # -----------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Take features into the context, up to the token before the root."""
        while self._features and (left := len(self._tokens) - 1 - self._context.known) > 0:
            known = self._features.pop(0)
            if len(known) > left:
                self._features.insert(0, known[left:])
            self._context.add(known[:left])

    def _guess(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        """Calibrated guesses after the last nodes of these paths."""
        if not self._blocked:
            self._context.block(self._tokens[-1])
            self._blocked = True
        nodes = [path[-1] for path in paths]
        depths = [len(path) - 1 for path in paths]
        before = [node.token for node in nodes]
        below = [[node.token for node in path[1:]] for path in paths]
        tokens, log_q = self._context.best(
            depths, before, self._ranking, self._width, self._tokens, below
        )
        return self._predictions.make(nodes, tokens, log_q, depths)
