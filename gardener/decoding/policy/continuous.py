"""Continuous speculation: nothing in the ring waits for anything else."""

import math
from dataclasses import dataclass, field

from gardener.decoding.costs import Costs
from gardener.decoding.policy.sizes import CATCH, best_prefix
from gardener.decoding.policy.steady import SteadySize
from gardener.decoding.policy.view import Bounds, View, ids
from gardener.decoding.tree import Node

AHEAD = 3
"""Segments for which likely nodes should be there before they are sent."""

AT_ONCE = 4
"""Calls' worth of nodes for a drafter that answers at once."""

LIKELY = 0.03
"""A drafter that answers at once is asked about places that are at least so likely."""

FREE = 0.5
"""A drafter whose calls take less than this share of a tick does not begin one when a verdict is
about to come."""


@dataclass(slots=True)
class Gardener:
    """The root first, then the likeliest nodes, segment after segment, without waiting for the
    verdict, the drafter or a stage."""

    bounds: Bounds
    name: str = "gardener"
    paced: bool = True
    throttled: bool = True
    waits: bool = True
    _rows: int = 0  # of the segment that left last
    _steady: SteadySize = field(default_factory=SteadySize)

    def window(self, costs: Costs) -> int:
        if self.bounds.window is not None:
            return self.bounds.window
        return math.ceil(costs.round_trip(1) / max(costs.tick(1), 1e-9)) + 1

    def offer(self, view: View) -> list[Node]:
        if view.flying >= self.window(view.costs) and not view.urgent:
            return []
        if not view.speculating:
            return [view.tree[view.tree.root]] if view.urgent else []
        return view.unsent(self.bounds.most, self.bounds.floor)

    def choose(self, view: View) -> list[int]:
        nodes = self.offer(view)
        if view.granted is not None:
            self._rows = view.granted
            return ids(nodes[: view.granted])
        if not nodes or not view.speculating:
            return ids(nodes)
        size = self._size(view, nodes)
        if view.urgent and self.waits and self._worth_waiting(view, nodes[:size]):
            return []
        self._rows = size
        if not view.beside:
            self._steady.offered([view.chance(node) for node in nodes])
        return ids(nodes[:size])

    def _worth_waiting(self, view: View, ready: list[Node]) -> bool:
        """Whether the root, and what is ready with it, should wait for what is being drafted. What
        comes too late comes with the next segment."""
        if view.overdue:
            return False
        asked = [view.tree[node] for node in view.growing if node in view.tree]
        coming = CATCH * sum(view.chance(node) for node in asked)
        now = sum(view.chance(node) for node in ready)
        wait = view.costs.draft(len(asked))
        lead = view.costs.lead(len(ready), self.window(view.costs))
        return now * wait < coming * (lead - wait)

    def grow(self, view: View) -> list[int]:
        draft = 0.0 if view.instant else view.costs.draft(self.bounds.batch)
        if not view.speculating:
            return []
        if view.verdict_in < draft < FREE * view.costs.tick(1) and not view.urgent:
            return []  # it will be asked again in a moment, and should be free then
        batch = self._batch(view)
        if batch and (batch := self._of_use(view, batch)):
            return ids(batch)
        root = view.tree.root  # what follows it decides first
        return [] if root in view.expanded else [root]

    def _of_use(self, view: View, batch: list[Node]) -> list[Node]:
        """Those below which a guess would leave with one of the next segments, because less than
        enough is ready to be sent that is likelier than such a guess."""
        most, floor = self.bounds.most, self.bounds.floor
        rows = self._rows or self._size(view, view.unsent(most, floor))
        enough = AHEAD * max(rows, 1)
        ready = view.unsent(enough, floor)
        if len(ready) < enough:
            return batch
        least = view.chance(ready[-1]) / CATCH
        return [node for node in batch if view.chance(node) > least]

    def _batch(self, view: View) -> list[Node]:
        """The nodes for the drafter that bring the most for its time."""
        if view.instant:  # all of it is the holder's own time, which stages may wait for
            return view.unexpanded(AT_ONCE * self.bounds.batch, max(LIKELY, self.bounds.floor))
        nodes = view.unexpanded(self.bounds.batch, self.bounds.floor)
        return nodes[: best_prefix([view.chance(node) for node in nodes], view.costs.draft)[0]]

    def _size(self, view: View, nodes: list[Node]) -> int:
        """Rows that bring the most tokens per second."""
        costs, window = view.costs, self.window(view.costs)
        steady = max(self._steady.rows(lambda rows: costs.lead(rows, window)), 1)
        ahead = costs.round_trip(steady) - costs.tick(steady)

        def seconds(rows: int) -> float:
            """By which its verdict comes after the one before, if that is of steady size. With more
            rows it takes longer at every stage, and those behind it wait: in a line of machines, by
            what a piece of work takes longer than others, all are late once for every machine."""
            lead = costs.lead(rows, window)
            return lead if rows <= steady else max(lead, costs.round_trip(rows) - ahead)

        return view.prefix(nodes, seconds)
