"""Which nodes go into the ring next, and how many. Baselines are policies too.

A policy sees one request through a `View` and answers two questions: `choose`, the rows of the next
segment, and `grow`, the nodes a drafter should expand. What it decides about sizes it reads from
the measured costs.
"""

from collections.abc import Callable

from gardener.policy.alternating import Alternating
from gardener.policy.baselines import Chunked, FlowSpec, PipeDec, Plain, Serial
from gardener.policy.continuous import Gardener
from gardener.policy.view import FLOOR, Policy, Shape, View


def gardener(shape: Shape) -> Policy:
    """For machines of their own, or for stages that share one machine's cores; a window that a user
    sets lets segments overlap there, too."""
    return Alternating(shape) if shape.crowded and shape.window is None else Gardener(shape)


POLICIES: dict[str, Callable[[Shape], Policy]] = {
    "plain": Plain,
    "serial": Serial,
    "chunked": Chunked,
    "pipedec": PipeDec,
    "flowspec": FlowSpec,
    "gardener": gardener,
}


def make(name: str, shape: Shape) -> Policy:
    """A policy of this name, for one request. Raises KeyError if there is none."""
    return POLICIES[name](shape)


__all__ = [
    "FLOOR",
    "POLICIES",
    "Alternating",
    "Chunked",
    "FlowSpec",
    "Gardener",
    "PipeDec",
    "Plain",
    "Policy",
    "Serial",
    "Shape",
    "View",
    "make",
]
