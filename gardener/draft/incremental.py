"""A drafter with a network and a memory of its own: computes what is new, and nothing twice.

It keeps keys and values of the settled text and of the tree in slots, as a stage does. When tokens
are accepted and their true features have come, their rows are computed once more on these
(re-anchored), all in one pass, and what follows the new root is guessed anew; rows further down
stay as they are. The more steps on the network's own outputs lie between a row and the last true
feature, the older the row is, and the less its guesses count.

What this does not do: it does not compute rows again that stay in the tree after a re-anchoring,
nor guess after a prompt that is too short to have a row.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from gardener.decoding.tree import Guess, Node, Opinion
from gardener.draft.calibration import Calibration
from gardener.draft.computed_rows import ComputedRows
from gardener.draft.device.rows import Recorded, RecordedRows
from gardener.draft.drafter import Draft
from gardener.draft.network import DraftNetwork
from gardener.draft.predictions import Predictions
from gardener.draft.ranking import Ranking
from gardener.errors import LocalError, RemoteError
from gardener.model.device.graphs import Recorder
from gardener.model.placement import Placement, merge
from gardener.model.tensors import unpack
from gardener.protocol import tensors
from gardener.protocol.sampling import GREEDY, Sampling

Rows: TypeAlias = ComputedRows | RecordedRows
"""The rows of one text."""

AT_ONCE = 256
"""Most rows in one pass: a long prompt is computed in pieces."""


class Incremental:
    """A drafter from a network, which all its drafts share, as they do the calibration. `width`:
    most guesses at one place. `numbers`: what its linear layers compute with, where that is not
    the network's dtype. `recorder`: how its device records work, None: all is done anew."""

    instant = False

    def __init__(
        self,
        network: DraftNetwork,
        calibration: Calibration,
        width: int = 8,
        numbers: str = "",
        recorder: Recorder | None = None,
    ) -> None:
        self.name, self.taps = network.name, network.taps
        self.numbers = numbers or str(network.dtype).removeprefix("torch.")
        self.network, self.calibration, self._width = network, calibration, width
        self._recorded = None if recorder is None else Recorded(network, recorder, width)

    @property
    def context(self) -> int:
        """See `Drafter`."""
        return self.network.shape.context

    def open(
        self,
        prompt: Sequence[int],
        sampling: Sampling = GREEDY,
        *,
        source: tuple[Draft | None, int] | None = None,
    ) -> Draft:
        """See `Drafter`."""
        if len(prompt) <= self.network.lead:
            return NoGuesses()
        with nullcontext() if self._recorded is None else self._recorded.lane():
            rows = self._rows(prompt, source)
        if rows is None:  # features of what is shared will never come
            return NoGuesses()
        return IncrementalDraft(self.network, self.calibration, self._width, prompt, sampling, rows)

    def _rows(self, prompt: Sequence[int], source: tuple[Draft | None, int] | None) -> Rows | None:
        """Of a text that may begin with another one's; None: they cannot be had."""
        lead = self.network.lead
        rows: Rows | None = None
        if source is not None:
            from_there, tokens = source
            shared = self._shared(from_there, tokens)
            if shared is not None:
                rows = shared.beginning(tokens - lead, len(prompt) - lead)
            elif self.taps:
                return None
        return rows or self._begun(len(prompt) - lead)

    def _begun(self, prompt: int) -> Rows:
        """Of a new text. What is recorded is of the network that it was made with."""
        if self._recorded is not None and self._recorded.network is self.network:
            return self._recorded.open(prompt)
        return ComputedRows(self.network, prompt)

    def _shared(self, source: Draft | None, tokens: int) -> Rows | None:
        """The rows of another draft, if all of its first `tokens` that have one are among them."""
        if not isinstance(source, IncrementalDraft) or tokens <= self.network.lead:
            return None
        return source.computed(tokens)


class NoGuesses:
    """A draft of a text whose prompt is too short to have a row, or of whose beginning neither rows
    nor features can be had."""

    def settle(self, nodes: Sequence[Node], features: Sequence[tensors.Tensor]) -> None:
        """See `Draft`."""

    def expand(self, paths: Sequence[Sequence[Node]]) -> Sequence[Opinion]:
        """See `Draft`."""
        return [() for _ in paths]


class _Missing(NamedTuple):
    """A node of the tree whose row is to be computed, and its position."""

    node: Node
    position: int


class IncrementalDraft:
    """One text and its tree. Node `id` has row `id - lead`, for the first tokens have none."""

    def __init__(
        self,
        network: DraftNetwork,
        calibration: Calibration,
        width: int,
        prompt: Sequence[int],
        sampling: Sampling,
        rows: Rows,
    ) -> None:
        """`rows`: none, or those of the first tokens."""
        self._network, self._width, self._lead = network, width, network.lead
        self._tokens = list(prompt)  # the certain text
        self._ranking = Ranking(sampling, network.tokens, len(prompt))
        self._rows = rows
        self._predictions = Predictions(calibration)
        self._done = rows.table.certain  # certain rows that are computed
        self._features: list[Tensor] = []  # of the target, for certain rows that are not
        self._accepted: list[Node] = []  # whose rows are not certain yet
        self._age: dict[int, int] = {}  # rows of the tree: own steps since the last true feature

    # --- the protocol ------------------------------------------------------------------------

    def settle(self, nodes: Sequence[Node], features: Sequence[tensors.Tensor]) -> None:
        """See `Draft`."""
        due = len(self._network.taps)
        if len(features) != due:
            raise RemoteError(f"features of {len(features)} taps came, {due} were asked")
        if features and features[0].shape[0]:
            parts = [unpack(tensor) for tensor in features]
            self._features.append(torch.cat(parts, -1).to(self._network.dtype))
        for node in nodes:
            self._predictions.learn(node)
        self._tokens += [node.token for node in nodes]
        self._accepted += nodes

    def expand(self, paths: Sequence[Sequence[Node]]) -> Sequence[Opinion]:
        """See `Draft`."""
        with self._rows.lane(), torch.inference_mode():
            self._catch_up()
            if not self._at_root:
                return [None for _ in paths]
            asked, root = paths[0][0].id - self._lead, self._rows.table.root
            if asked != root:
                raise LocalError(f"asked about root {asked}, but {root} is the root")
            self._draft(paths)
            return self._guess(paths)

    def computed(self, tokens: int) -> Rows | None:
        """Its rows, once those of the first `tokens` are computed; None: they cannot be yet."""
        with torch.inference_mode():
            self._catch_up()
        return self._rows if self._done >= tokens - self._lead else None

    # --- the certain text --------------------------------------------------------------------

    @property
    def _at_root(self) -> bool:
        """Whether all certain rows are computed, the root's too, so that there is something to
        guess from. Of a long prompt, features come in pieces, and the last row so far may stand
        anywhere in it."""
        return self._done == len(self._tokens) - self._lead and self._rows.any_certain

    def _catch_up(self) -> None:
        """Compute certain rows for which everything is known: prompt first, then accepted ones."""
        prompt = len(self._tokens) - len(self._accepted) - self._lead
        while self._done < prompt and (known := self._known(prompt - self._done)):
            ids = list(range(self._done, self._done + known))
            self._certain(self._rows.table.place(ids, [i - 1 for i in ids], ids), known)
        if self._accepted and self._done == prompt:
            self._re_anchor()

    def _known(self, wanted: int) -> int:
        """How many of the next rows can be computed now, in one pass."""
        wanted = min(wanted, AT_ONCE)
        if not self._network.taps:
            return wanted
        return min(wanted, sum(len(features) for features in self._features))

    def _re_anchor(self) -> None:
        """Compute rows of accepted nodes on true features; free those of branches that died."""
        table, lead = self._rows.table, self._lead
        ids = [node.id - lead for node in self._accepted]
        kept = [row for row in ids if row in table]
        new = self._accepted[len(kept) :]
        count = len(new)
        placements = []
        if self._network.taps and kept:
            placements.append(table.again(kept))
            count += len(kept)
        if new:
            placements.append(self._place_accepted(new))
        if placements:
            self._certain(merge(placements), count)
        else:  # nothing to compute: the root's row is right as it is
            self._rows.take_over(table.slot(ids[-1]))
        self._rows.advance([table.root, *ids[:-1]], ids[-1])
        self._done = len(self._tokens) - lead
        self._accepted = []
        self._age = {row: age for row, age in self._age.items() if row in table}
        self._predictions.keep({row + lead for row in (*self._age, table.root)})

    def _place_accepted(self, nodes: Sequence[Node]) -> Placement:
        """Slots for accepted nodes that have no row, the last ones of the text."""
        first = len(self._tokens) - self._lead - len(nodes)
        ids = [node.id - self._lead for node in nodes]
        parents = [node.parent - self._lead for node in nodes]
        return self._rows.table.place(ids, parents, range(first, first + len(nodes)))

    def _certain(self, placement: Placement, count: int) -> None:
        """Compute `count` certain rows, the last ones of what is computed by then."""
        positions = placement.positions.tolist()
        tokens = [self._tokens[position + self._lead] for position in positions]
        features = self._next_features(count) if self._network.taps else torch.zeros(0)
        self._rows.run_certain(tokens, features, placement)
        self._done += count

    def _next_features(self, count: int) -> Tensor:
        """The target's features for the next `count` certain rows, which are used up by this."""
        known = self._features[0] if len(self._features) == 1 else torch.cat(self._features)
        if len(known) < count:
            raise RemoteError(f"features of {len(known)} rows came, {count} were due")
        rest = known[count:]
        self._features = [rest] if len(rest) else []
        return known[:count]

    # --- the tree ----------------------------------------------------------------------------

    def _draft(self, paths: Sequence[Sequence[Node]]) -> None:
        """Compute the rows on these paths that are missing: all whose parents have been computed in
        one pass, wherever in the tree they stand, then those below them."""
        table = self._rows.table
        base = len(self._tokens) - 1 - self._lead  # position of the root's row
        waves: list[dict[int, _Missing]] = []
        for path in paths:
            missing = ((d, n) for d, n in enumerate(path[1:], 1) if n.id - self._lead not in table)
            for wave, (depth, node) in enumerate(missing):
                if wave == len(waves):
                    waves.append({})
                waves[wave][node.id] = _Missing(node, base + depth)
        for rows in (list(wave.values()) for wave in waves):
            for first in range(0, len(rows), AT_ONCE):
                self._wave(rows[first : first + AT_ONCE])

    def _wave(self, missing: Sequence[_Missing]) -> None:
        """Compute these rows in one pass; those of their parents are there."""
        taps = self._network.taps
        ids = [node.id - self._lead for node, _ in missing]
        parents = [node.parent - self._lead for node, _ in missing]
        placement = self._rows.table.place(ids, parents, [row.position for row in missing])
        for row, parent in zip(ids, parents, strict=True):
            self._age[row] = self._age.get(parent, 0) + 1 if taps else 0
        self._rows.run_tree([node.token for node, _ in missing], parents, placement)

    def _guess(self, paths: Sequence[Sequence[Node]]) -> list[tuple[Guess, ...]]:
        """Calibrated guesses after the last nodes of these paths, whose rows are computed."""
        nodes = [path[-1] for path in paths]
        rows = [node.id - self._lead for node in nodes]
        below = [[node.token for node in path[1:]] for path in paths]
        tokens, log_q = self._rows.best(rows, self._ranking, self._width, self._tokens, below)
        ages = [self._age.get(row, 0) for row in rows]
        return self._predictions.make(nodes, tokens, log_q, ages)
