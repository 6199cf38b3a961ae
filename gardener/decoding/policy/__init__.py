"""Which nodes go into the ring next, and how many. Baselines are policies too.

A policy sees one request through a `View` and answers two questions: `choose`, the rows of the next
segment, and `grow`, the nodes a drafter should expand. What it decides about sizes it reads from
the measured costs.
"""

from collections.abc import Callable

from gardener.decoding.policy.alternating import Alternating
from gardener.decoding.policy.baselines import Plain, Serial
from gardener.decoding.policy.chunked import Chunked, Chunked80
from gardener.decoding.policy.continuous import Gardener
from gardener.decoding.policy.flowspec import FlowSpec, FlowSpec80
from gardener.decoding.policy.pipedec import PipeDec, PipeDec16
from gardener.decoding.policy.view import FLOOR, Bounds, Policy, View


def gardener(bounds: Bounds) -> Policy:
    """For machines of their own, or for stages that share one machine's cores; a window that a user
    sets lets segments overlap there, too."""
    return Alternating(bounds) if bounds.crowded and bounds.window is None else Gardener(bounds)


POLICIES: dict[str, Callable[[Bounds], Policy]] = {
    "plain": Plain,
    "serial": Serial,
    "chunked": Chunked,
    "chunked-80": Chunked80,
    "pipedec": PipeDec,
    "pipedec-16": PipeDec16,
    "flowspec": FlowSpec,
    "flowspec-80": FlowSpec80,
    "gardener": gardener,
}

MAIN = ("plain", "serial", "chunked", "pipedec", "flowspec", "gardener")
"""What is compared where the user names none. Those with a number have the sizes of their papers,
whatever rows cost; the others have sizes that follow from the measured costs."""


def make(name: str, bounds: Bounds) -> Policy:
    """A policy of this name, for one request. Raises KeyError if there is none."""
    return POLICIES[name](bounds)


__all__ = [
    "FLOOR",
    "MAIN",
    "POLICIES",
    "Alternating",
    "Bounds",
    "Chunked",
    "Chunked80",
    "FlowSpec",
    "FlowSpec80",
    "Gardener",
    "PipeDec",
    "PipeDec16",
    "Plain",
    "Policy",
    "Serial",
    "View",
    "make",
]
