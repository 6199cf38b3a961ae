"""How long a pass of this stage takes, by its rows: measured once, before it serves.

A pass is that of a chain of rows after a settled text. What stands in the cache does not matter for
the time, so that text is never computed: its slots hold zeros. What the rows hold does matter for a
mixture of experts: alike, they would all go through the same few, and the same few again whenever
they were timed, which are in the processor's cache then. So they are random, and others each time.

Of a row alone, the blocks and the end of the stage are timed apart, in the same passes: the head by
itself, again and again, would find its weights in the processor's cache. From that follows which
layers a stage should hold (`cluster/plan/balance.py`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf

import numpy as np
import torch

from gardener.decoding.costs import LONG, SHORT, SIZES
from gardener.decoding.curves import steep
from gardener.model.placement import Placement
from gardener.model.tensors import dtype_of, pack
from gardener.protocol.messages import Open
from gardener.stages.executor import Executor
from gardener.stages.forward import PlacedSegment

BUDGET = 2.0
"""Seconds that all of it may take. Sizes that do not fit into it are left out."""

FOR_LONG = 0.3
"""Share of the budget that is kept for the long context."""

LONG_SIZES = (1, 16, 64)
"""Rows that are measured there."""

TURNS = 4
"""How often all sizes are timed, if there is time; the quickest pass of each counts."""

_LOADING = 5
"""How many passes it takes about to load and record one, and to time it."""

AWAKE = 0.2
"""Seconds for which a device is timed at least, if there is time: it may have slept before."""

REQUEST = -1
"""A request that no holder has, whose cache is used."""

Points = tuple[tuple[int, float], ...]
"""Rows, ascending, each with the seconds of a pass."""


@dataclass(frozen=True)
class Measured:
    """What was measured; `long` at `context` tokens, () if the model has no room for that many.

    `layer` and `head` are seconds of a row alone at a short context. Layers may differ (mixtures,
    windows): it is the mean over those that are here, with what a pass takes besides.
    """

    short: Points
    long: Points
    context: int
    wanted: int  # most rows that were to be measured
    seconds: float  # spent on measuring
    threads: int = 0  # of the processor that computed; 0: another device did
    layer: float = 0.0
    head: float = 0.0  # 0: it is not here

    def __str__(self) -> str:
        """In one line, for people."""
        (first, least), (last, most) = self.short[0], self.short[-1]
        told = f"a pass of {first} row takes {least * 1e3:.3g} ms"
        if last > first:
            told += f", of {last} rows {most * 1e3:.3g} ms"
        if self.threads:
            told += f", with {self.threads} thread{'s' * (self.threads > 1)}"
        if last < self.wanted:
            told += f"; more rows are estimated from this, to measure them takes over {BUDGET:g} s"
        return "; ".join(filter(None, (told, steep(self.short))))


def measure(
    stage: Executor, budget: float = BUDGET, now: Callable[[], float] = time.perf_counter
) -> Measured:
    """Time passes of this stage, for about `budget` seconds, on the worker thread."""
    begin = now()
    room = stage.architecture.context
    context, settled = min(LONG, room // 2), min(SHORT, room // 2)
    sizes = [rows for rows in SIZES if settled + rows <= room]
    long_sizes = [rows for rows in LONG_SIZES if context + rows <= room] if context > SHORT else []
    deadline = begin + budget
    short_end = deadline - (FOR_LONG * budget if long_sizes else 0.0)
    most = max(settled + sizes[-1], context + max(long_sizes, default=0))
    stage.open(Open(REQUEST, 1, most))
    try:
        timer = _Timer(stage, now)
        short = timer.points(settled, sizes, short_end)
        long = timer.points(context, long_sizes, deadline)
        stage.weigh(chain(stage, settled, sizes[0], 0), now)
    finally:
        stage.close(REQUEST)
    held = stage.slice
    return Measured(
        short,
        long,
        context if long else 0,
        sizes[-1],
        now() - begin,
        stage.threads,
        timer.alone[settled][0] / (held.end - held.first),
        timer.alone[settled][1] if held.is_last else 0.0,
    )


@dataclass(frozen=True)
class _Timer:
    """`alone`: by tokens before it, the least seconds that a row alone was seen to take in the
    blocks, and at the end of the stage."""

    stage: Executor
    now: Callable[[], float]
    alone: dict[int, tuple[float, float]] = field(default_factory=dict)

    def points(self, context: int, sizes: Sequence[int], deadline: float) -> Points:
        """Rows and seconds. The first size is always timed, each further one if there is time for
        it.

        Sizes are timed in turns, and the quickest pass counts: whatever else this machine is busy
        with meanwhile, another stage that is loading for instance, slows all sizes alike or not
        at all. What matters is how they compare; the level is learned from real passes.
        """
        by_size: dict[int, int] = {}  # what is timed for all that take the same pass
        for rows in sizes:
            by_size.setdefault(self.stage.filled(rows), rows)
        best: dict[int, float] = {}
        for rows in by_size.values():
            loads = _LOADING if self.stage.loads_kernels else 1
            if best and self.now() + loads * best[max(best)] > deadline:
                break
            if not best or self.stage.loads_kernels:
                self.time(context, rows, TURNS)  # the very first pass does what is done once
            best[rows] = self.time(context, rows, 0)
        awake = self.now() + (AWAKE if self.stage.loads_kernels else 0.0)
        for turn in count(1):
            enough = turn >= TURNS and self.now() >= awake
            if enough or self.now() + sum(best.values()) > deadline:
                break
            for rows, least in best.items():
                best[rows] = min(least, self.time(context, rows, turn))
        timed = ((rows, by_size[self.stage.filled(rows)]) for rows in sizes)
        return tuple((rows, best[at]) for rows, at in timed if at in best)

    def time(self, context: int, rows: int, turn: int) -> float:
        blocks, end = self.stage.timed([chain(self.stage, context, rows, turn)], self.now)
        if rows == 1:
            least, least_end = self.alone.get(context, (inf, inf))
            self.alone[context] = min(blocks, least), min(end, least_end)
        return blocks + end


def chain(stage: Executor, context: int, rows: int, turn: int) -> PlacedSegment:
    """A segment of `rows` rows, each the child of the one before, after `context` tokens; others
    for each `turn`."""
    chance = torch.Generator().manual_seed(turn * 2**16 + rows)
    high = context + rows
    positions = np.arange(high, dtype=np.int64)
    placement = Placement(
        slots=positions[context:],
        positions=positions[context:],
        base=context,
        high=high,
        mask=np.tri(rows, dtype=np.bool_) if rows > 1 else None,
        slot_positions=positions[context:],
    )
    if stage.slice.is_first:
        tokens = torch.randint(stage.architecture.vocab, (rows,), generator=chance).tolist()
        return PlacedSegment(REQUEST, placement, tokens=tokens, pick_rows=range(rows))
    # Zeros would be quick where a processor skips them, and normal numbers are what comes later.
    hidden = torch.randn(rows, stage.width, generator=chance)
    return PlacedSegment(
        REQUEST, placement, hidden=pack(hidden.to(dtype_of(stage.dtype))), pick_rows=range(rows)
    )
