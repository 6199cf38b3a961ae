"""Rings to be planned, and formulas that foretell them."""

from gardener.cluster.plan.machines import Machines
from gardener.cluster.plan.plan import Rates, Trial, Trials
from gardener.protocol.messages import Card

LAYERS = 12
MS = 10**6
"""Nanoseconds."""


def card(
    stage: int,
    first: int,
    end: int,
    layer_ms: int = 0,
    head_ms: int = 0,
    *,
    most: int = LAYERS,
    delay: int = 250,
    bandwidth: int = 0,
) -> Card:
    """Of a stage whose passes take twice as long with 16 rows, or of the holder (0). Its memory
    takes `most` layers; `delay` in microseconds."""
    held = end - first
    alone = 1000 * (held * layer_ms + head_ms)
    return Card(
        *(stage, f"oak{stage}", "0.1", first, end, LAYERS, 64, "m", "bfloat16", "int4"),
        100 * held,
        costs=((1, alone), (16, 2 * alone)) if held else (),
        delay=delay,
        bandwidth=bandwidth,
        kv_slot=1,
        kv_room=200 * (most - held) or 1,
        layer=layer_ms * MS,
        head=head_ms * MS,
        head_quant="int8" if held else "",
    )


def ring(*stages: Card, holder: int = 100) -> Machines:
    """`holder`: microseconds to stage 1."""
    return Machines.of((card(0, 0, 0, delay=holder), *stages), 16)


THREE = ring(
    card(1, 0, 4, 1, delay=200, bandwidth=10**6),
    card(2, 4, 8, 2, delay=5000),
    card(3, 8, 12, 2, 4, delay=300),
)
"""4, 8 and 12 ms a token; at best 8, 6 and 6."""


def foretold(trials: Trials, draft: float = 0.002) -> dict[Trial, Rates]:
    """By formulas that are simple enough for a test: plain, a row goes through all; with guesses,
    two tokens come with each tick."""
    found = {}
    for trial, each in trials.rings.items():
        round_trip = sum(curve(1) for curve in each.curves) + sum(hop.delay for hop in each.hops)
        tick = max(curve(1) for curve in each.curves)
        found[trial] = Rates(1 / round_trip, 2 / max(tick, draft))
    return found
