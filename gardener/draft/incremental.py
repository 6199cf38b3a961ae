"""A drafter with a network and a memory of its own: computes what is new, and nothing twice.

It keeps keys and values of the settled text and of the tree in slots, as a stage does. When tokens
are accepted and their true features have come, their rows are computed once more on these
(re-anchored), all in one pass, and what follows the new root is guessed anew; rows further down
stay as they are. A row computed on its parent's own output is the older the more such steps lie
between it and the last true feature, and its guesses count for less.

What this does not do: compute rows that stay in the tree again after a re-anchoring; guess at all
after a prompt that is too short to have a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gardener.decoding.tree import Guess, Node, Opinion
from gardener.draft.calibration import Calibration
from gardener.errors import LocalError, RemoteError
from gardener.model.architecture import Architecture
from gardener.model.attention import Span
from gardener.model.kv_cache import KVCache
from gardener.model.kv_slots import Placement, SlotTable, merge
from gardener.model.rotary import Rotary
from gardener.model.tensors import unpack
from gardener.protocol import messages

AT_ONCE = 256
"""Most rows in one pass: a long prompt is computed in pieces."""

LONGEST = 1 << 20
"""Rows of a text: one that is longer than the network was made for is guessed worse, no more."""

SPARE = 4096
"""Rows of trees beyond the text."""

LARGEST = 1e4
"""What an entry of a row's own output may be. A network that is run on its own outputs can double
them with every token; what is infinite would go on into keys, values and every later row."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows for a network.

    tokens    one per row
    features  [rows, taps * width] of the target if `true`, else [rows, outputs] of the network
              itself for the tokens before
    before    [1, outputs] of the network for the token before the first, if these are `true` (such
              rows follow one another) and there is such a row
    cos, sin  their rotation
    spans     what they write and see
    """

    tokens: Sequence[int]
    features: Tensor
    true: bool
    before: Tensor | None
    cos: Tensor
    sin: Tensor
    spans: Sequence[Span]


class DraftNetwork(Protocol):
    """What guesses from rows."""

    name: str
    lead: int  # tokens at the beginning of the text that have no row
    layers: int
    shape: Architecture
    taps: tuple[int, ...]
    rotary: Rotary
    dtype: torch.dtype
    device: torch.device

    def run(self, batch: Batch) -> Tensor:
        """Outputs [rows, outputs]: what guesses and later rows need of these."""

    def guesses(self, outputs: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Tokens [rows, count], likeliest first, and natural logs of their probabilities."""
        ...


class _Told(NamedTuple):
    """What was said of a node: the guesses, their chances by the map alone, and the node's age."""

    tokens: list[int]
    chance: NDArray[np.float64]
    age: int


class _Row(NamedTuple):
    """A node of the tree whose row is to be computed, and its position."""

    node: Node
    position: int


class Incremental:
    """A drafter from a network. `width`: most guesses at one place. `numbers`: what its linear
    layers compute with, where that is not the network's dtype."""

    instant = False

    def __init__(
        self, network: DraftNetwork, calibration: Calibration, width: int = 8, numbers: str = ""
    ) -> None:
        self.name, self.taps = network.name, network.taps
        self.numbers = numbers or str(network.dtype).removeprefix("torch.")
        self.network, self.calibration, self._width = network, calibration, width
        self.begin(())

    # --- the protocol ------------------------------------------------------------------------

    def begin(self, prompt: Sequence[int]) -> None:
        """See `Drafter`."""
        network = self.network
        rows = max(len(prompt) - network.lead, 0)
        self._tokens = list(prompt)  # the certain text
        self._table = SlotTable(rows, LONGEST, SPARE) if rows else None
        self._cache = KVCache(network.layers, network.shape, network.dtype, network.device)
        self._outputs = torch.zeros(0, 0)  # by slot
        self._done = 0  # certain rows that are computed
        self._features: list[Tensor] = []  # of the target, for certain rows that are not
        self._accepted: list[Node] = []  # whose rows are not certain yet
        self._age: dict[int, int] = {}  # rows of the tree: own steps since the last true feature
        self._root_output: Tensor | None = None  # [1, outputs], of the last certain row computed
        self._told: dict[int, _Told] = {}

    def settle(self, nodes: Sequence[Node], features: Sequence[messages.Tensor]) -> None:
        """See `Drafter`."""
        if len(features) != len(self.taps):
            raise RemoteError(f"features of {len(features)} taps came, {len(self.taps)} were asked")
        if self._table is None:
            return
        if features and features[0].shape[0]:
            parts = [unpack(tensor) for tensor in features]
            self._features.append(torch.cat(parts, -1).to(self.network.device, self.network.dtype))
        for node in nodes:
            self._learn(node)
        self._tokens += [node.token for node in nodes]
        self._accepted += nodes

    def expand(self, paths: Sequence[Sequence[Node]]) -> Sequence[Opinion]:
        """See `Drafter`."""
        with torch.inference_mode():
            self._catch_up()
            if self._table is None:
                return [() for _ in paths]
            if not self._at_root:
                return [None for _ in paths]
            root = paths[0][0].id - self.network.lead
            if root != self._table.root:
                raise LocalError(f"asked about root {root}, but {self._table.root} is the root")
            self._draft(paths)
            return self._answer([path[-1] for path in paths])

    # --- the certain text --------------------------------------------------------------------

    @property
    def _at_root(self) -> bool:
        """All certain rows are computed, the root's too: there is something to guess from. Of a
        long prompt, features come in pieces, and the last row so far may stand anywhere in it."""
        return self._done == len(self._tokens) - self.network.lead and self._root_output is not None

    def _catch_up(self) -> None:
        """Compute certain rows for which everything is known: prompt first, then accepted ones."""
        lead = self.network.lead
        if self._table is None:
            return
        prompt = len(self._tokens) - len(self._accepted) - lead
        while self._done < prompt and (known := self._known(prompt - self._done)):
            ids = list(range(self._done, self._done + known))
            self._certain(self._table.place(ids, [i - 1 for i in ids], ids), known)
        if self._accepted and self._done == prompt:
            self._re_anchor()

    def _known(self, wanted: int) -> int:
        """How many of the next rows can be computed now, in one pass."""
        wanted = min(wanted, AT_ONCE)
        return min(wanted, sum(len(f) for f in self._features)) if self.taps else wanted

    def _re_anchor(self) -> None:
        """Rows of accepted nodes, on true features; rows of the branches that died are freed."""
        table, lead = self._table, self.network.lead
        assert table is not None
        ids = [node.id - lead for node in self._accepted]
        kept = [row for row in ids if row in table]
        new = self._accepted[len(kept) :]
        fresh = [node.id - lead for node in new]
        count = len(new)
        placements = []
        if self.taps and kept:
            placements.append(table.again(kept))
            count += len(kept)
        if fresh:
            first = len(self._tokens) - lead - len(new)
            positions = list(range(first, first + len(new)))
            parents = [node.parent - lead for node in new]
            placements.append(table.place(fresh, parents, positions))
        root_slot = table.slot(ids[-1])
        table.advance([table.root, *ids[:-1]], ids[-1])
        if placements:
            self._certain(merge(placements), count)
        else:  # nothing to compute: the root's row is right as it is
            self._root_output = self._outputs[root_slot][None]
        self._done = len(self._tokens) - lead
        self._accepted = []
        self._age = {row: age for row, age in self._age.items() if row in table}
        alive = {row + lead for row in (*self._age, table.root)}
        self._told = {node: told for node, told in self._told.items() if node in alive}

    def _certain(self, placement: Placement, count: int) -> None:
        """Compute `count` certain rows, the last ones of what is computed by then."""
        positions = placement.positions.tolist()
        tokens = [self._tokens[position + self.network.lead] for position in positions]
        features = torch.zeros(0)
        if self.taps:
            known = self._features[0] if len(self._features) == 1 else torch.cat(self._features)
            if len(known) < count:
                raise RemoteError(f"features of {len(known)} rows came, {count} were due")
            features, rest = known[:count], known[count:]
            self._features = [rest] if len(rest) else []
        outputs = self._run(tokens, features, True, placement)
        self._root_output = outputs[-1:]
        self._done += count

    # --- the tree ----------------------------------------------------------------------------

    def _draft(self, paths: Sequence[Sequence[Node]]) -> None:
        """Compute the rows on these paths that are missing: all whose parents have been computed in
        one pass, wherever in the tree they stand, then those below them."""
        table, lead = self._table, self.network.lead
        assert table is not None
        base = len(self._tokens) - 1 - lead  # position of the root's row
        waves: list[dict[int, _Row]] = []
        for path in paths:
            missing = ((d, n) for d, n in enumerate(path[1:], 1) if n.id - lead not in table)
            for wave, (depth, node) in enumerate(missing):
                if wave == len(waves):
                    waves.append({})
                waves[wave][node.id] = _Row(node, base + depth)
        for rows in (list(wave.values()) for wave in waves):
            for first in range(0, len(rows), AT_ONCE):
                self._wave(rows[first : first + AT_ONCE])

    def _wave(self, rows: Sequence[_Row]) -> None:
        nodes = [row.node for row in rows]
        table, lead = self._table, self.network.lead
        assert table is not None
        parents = [node.parent - lead for node in nodes]
        features = torch.zeros(0)
        if self.taps:
            features = self._outputs_of(parents)
        ids = [node.id - lead for node in nodes]
        placement = table.place(ids, parents, [row.position for row in rows])
        for row, parent in zip(ids, parents, strict=True):
            self._age[row] = self._age.get(parent, 0) + 1 if self.taps else 0
        self._run([node.token for node in nodes], features, False, placement)

    def _outputs_of(self, rows: Sequence[int]) -> Tensor:
        """Outputs [rows, outputs] of the root or of rows of the tree."""
        assert self._table is not None
        table, root = self._table, self._table.root
        if all(row == root for row in rows):
            assert self._root_output is not None
            return self._root_output.expand(len(rows), -1)
        slots = torch.tensor([0 if row == root else table.slot(row) for row in rows])
        found = self._outputs[slots.to(self.network.device)]
        at_root = [i for i, row in enumerate(rows) if row == root]
        if at_root:
            assert self._root_output is not None
            found[at_root] = self._root_output
        return found

    def _run(
        self, tokens: Sequence[int], features: Tensor, true: bool, placement: Placement
    ) -> Tensor:
        """One pass; outputs [rows, outputs] are kept by slot."""
        network = self.network
        device = network.device
        self._cache.reserve(placement.high)
        slots = torch.from_numpy(placement.slots).to(device)
        bias = None
        if placement.mask is not None:
            blocked = np.where(placement.mask, np.float32(0.0), np.float32(-np.inf))
            bias = torch.from_numpy(blocked).to(device)
        span = Span(0, len(tokens), self._cache, slots, placement.high, {None: bias})
        positions = torch.from_numpy(placement.positions).to(device)
        cos, sin = network.rotary.at(positions, int(placement.positions.max()))
        before = self._root_output if true else None
        batch = Batch(tokens, features, true, before, cos, sin, [span])
        outputs = network.run(batch).clamp_(-LARGEST, LARGEST)
        if len(self._outputs) < placement.high:
            grown = outputs.new_zeros(2 * placement.high, outputs.shape[1])
            if len(self._outputs):
                grown[: len(self._outputs)] = self._outputs
            self._outputs = grown
        self._outputs.index_copy_(0, slots, outputs)
        return outputs

    # --- guesses -----------------------------------------------------------------------------

    def _answer(self, nodes: Sequence[Node]) -> list[tuple[Guess, ...]]:
        """Calibrated guesses after nodes whose rows are computed."""
        lead = self.network.lead
        rows = [node.id - lead for node in nodes]
        tokens, log_q = self.network.guesses(self._outputs_of(rows), self._width)
        ages = np.array([self._age.get(row, 0) for row in rows])
        named = tokens.tolist()
        ranks = np.arange(len(named[0]), dtype=float)[None]
        chances = self.calibration.probabilities(log_q.double().cpu().numpy(), ranks, ages[:, None])
        given = self.calibration.corrected(chances, *np.broadcast_arrays(ranks, ages[:, None]))
        given /= np.maximum(given.sum(-1, keepdims=True), 1.0)
        for node, guesses, chance, age in zip(nodes, named, chances, ages.tolist(), strict=True):
            self._told[node.id] = _Told(guesses, chance, age)
        return [
            tuple(map(Guess, guesses, odds))
            for guesses, odds in zip(named, given.tolist(), strict=True)
        ]

    def _learn(self, node: Node) -> None:
        """A guess at this place came true, or none did."""
        told = self._told.pop(node.parent, None)
        if told is not None:
            hit = told.tokens.index(node.token) if node.token in told.tokens else None
            self.calibration.observe(told.chance, told.age, hit)
