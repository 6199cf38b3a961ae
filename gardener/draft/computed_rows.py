"""The rows of one text that a draft network has computed: keys, values and outputs, by slot."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from gardener.draft.network import DraftNetwork, DraftRows
from gardener.draft.ranking import Ranking, fetched
from gardener.model.attention import Span, quick_attention
from gardener.model.kv_cache import KVCache, put_for
from gardener.model.kv_slots import SlotTable
from gardener.model.placement import Placement
from gardener.protocol.room import MOST_CONTEXT

SPARE = 4096
"""Rows of trees beyond the text."""

LARGEST = 1e4
"""What an entry of a row's own output may be. A network that is run on its own outputs can double
them with every token; what is infinite would go on into keys, values and every later row."""


class ComputedRows:
    """Runs the network, and keeps what later passes need of each row. `table` says where rows stand
    and what they see. A text that is longer than the network was made for is guessed worse, no
    more: what its guesses are worth is learned from what comes true."""

    def __init__(self, network: DraftNetwork, prompt: int, shared: int = 0) -> None:
        """`prompt`: rows of the prompt, at least one. `shared`: how many of them are copied from
        elsewhere, see `beginning`."""
        self._network = network
        self._windows = {None, *network.shape.windows}  # a head looks back all the way
        self.prompt = prompt
        self.table = SlotTable(prompt, MOST_CONTEXT, SPARE, shared)
        self._cache = KVCache(network.layers, network.shape, network.dtype, network.device)
        self._outputs = torch.zeros(0, 0)  # by slot
        self._put = put_for(network.device)
        self._last: Tensor | None = None  # [1, outputs], of the last certain row

    def lane(self) -> AbstractContextManager[object]:
        """The context in which to work: work is given to the device as everywhere else."""
        return nullcontext()

    @torch.inference_mode()
    def beginning(self, shared: int, prompt: int) -> "ComputedRows":
        """A copy of the first `shared` certain rows, at least one, all of which are computed: for
        another text, of whose prompt of `prompt` rows they are the first."""
        rows = ComputedRows(self._network, prompt, shared)
        slots = self.table.first(shared)
        rows._cache.copy(self._cache, slots)
        rows._outputs = self._outputs[torch.from_numpy(slots).to(self._network.device)]
        rows._last = rows._outputs[-1:]
        return rows

    @property
    def any_certain(self) -> bool:
        """Whether there is a certain row, after which something can be guessed."""
        return self._last is not None

    def run_certain(self, tokens: Sequence[int], features: Tensor, placement: Placement) -> None:
        """Compute rows that follow one another in the certain text, on the target's features."""
        outputs = self._run(tokens, features.to(self._network.device), True, placement)
        self._last = outputs[-1:]

    def run_tree(self, tokens: Sequence[int], parents: Sequence[int], placement: Placement) -> None:
        """Compute rows of the tree, on the outputs of their parents, which are computed."""
        features = self._outputs_of(parents) if self._network.taps else torch.zeros(0)
        self._run(tokens, features, False, placement)

    def best(
        self,
        rows: Sequence[int],
        ranking: Ranking,
        count: int,
        text: Sequence[int],
        paths: Sequence[Sequence[int]],
    ) -> tuple[Tensor, Tensor]:
        """Guesses after the root or rows of the tree, see `Ranking.best`; on the CPU."""
        logits = self._network.logits(self._outputs_of(rows))
        return fetched(*ranking.best(logits, count, text, paths))

    def take_over(self, slot: int) -> None:
        """The row in this slot, computed as a row of the tree, is the last certain one now."""
        self._last = self._outputs[slot][None].clone()

    def advance(self, settled: Sequence[int], root: int) -> None:
        """The root moves on, see `SlotTable.advance`; what is settled finds its place."""
        self.table.advance(settled, root)
        moves = self.table.moves()
        if moves is not None:
            device = self._network.device
            self._cache.move(moves)
            self._reserve(int(moves.targets.max()) + 1)
            sources, targets = (torch.from_numpy(slots).to(device) for slots in moves)
            self._put(self._outputs, 0, targets, self._outputs.index_select(0, sources))

    def _outputs_of(self, rows: Sequence[int]) -> Tensor:
        """Outputs [rows, outputs] of the root or of rows of the tree."""
        root = self.table.root
        if all(row == root for row in rows):
            return self._root().expand(len(rows), -1)
        slots = torch.tensor([0 if row == root else self.table.slot(row) for row in rows])
        found = self._outputs[slots.to(self._network.device)]
        at_root = [i for i, row in enumerate(rows) if row == root]
        if at_root:
            found[at_root] = self._root()
        return found

    def _root(self) -> Tensor:
        assert self._last is not None, "the row of the root is computed before it is asked for"
        return self._last

    def _run(
        self, tokens: Sequence[int], features: Tensor, true: bool, placement: Placement
    ) -> Tensor:
        """One pass; outputs [rows, outputs] are kept by slot."""
        network = self._network
        device = network.device
        kernel = quick_attention(device)
        span = Span.of(placement, self._cache, device, kernel, windows=self._windows)
        positions = torch.from_numpy(placement.positions).to(device)
        rotations = network.rotary.at(positions, int(placement.positions.max()))
        before = self._last if true else None
        embedded = network.embed(torch.tensor(tokens))
        rows = DraftRows(embedded, features, true, before, rotations, [span])
        outputs = network.run(rows).clamp_(-LARGEST, LARGEST)
        if not len(self._outputs):
            self._outputs = outputs.new_zeros(1, outputs.shape[1])
        self._reserve(placement.high)
        self._put(self._outputs, 0, span.slots, outputs)
        return outputs

    def _reserve(self, high: int) -> None:
        """Room for the outputs of this many slots."""
        known = len(self._outputs)
        if known < high:
            grown = self._outputs.new_zeros(2 * high, self._outputs.shape[1])
            grown[:known] = self._outputs
            self._outputs = grown
