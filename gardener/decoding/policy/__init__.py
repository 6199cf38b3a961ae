"""Which nodes go into the ring next, and how many. Baselines are policies too.

A policy sees one request through a `View` and answers two questions: `choose`, the rows of the next
segment, and `grow`, the nodes a drafter should expand. What it decides about sizes it reads from
the measured costs.
"""

from collections.abc import Callable, Collection

from gardener.decoding.policy.alternating import Alternating
from gardener.decoding.policy.baselines import Plain, Serial
from gardener.decoding.policy.chunked import Chunked, Chunked80
from gardener.decoding.policy.continuous import Gardener
from gardener.decoding.policy.flowspec import FlowSpec, FlowSpec80
from gardener.decoding.policy.pipedec import PipeDec, PipeDec16
from gardener.decoding.policy.view import FLOOR, MOST, Bounds, Policy, SharingPolicy, View

POLICIES: dict[str, Callable[[Bounds], Policy]] = {
    "plain": Plain,
    "serial": Serial,
    "chunked": Chunked,
    "chunked-80": Chunked80,
    "pipedec": PipeDec,
    "pipedec-16": PipeDec16,
    "flowspec": FlowSpec,
    "flowspec-80": FlowSpec80,
    "gardener": Gardener,
    "alternating": Alternating,
}
"""All policies by name: one name, one behaviour, whatever the ring."""

MAIN = ("plain", "serial", "chunked", "pipedec", "flowspec", "gardener")
"""What is compared where every stage has a machine of its own. Those with a number have the sizes
of their papers, whatever rows cost; the others have sizes that follow from the measured costs."""

SHARING = "the stages and the drafter share the cores of one machine"
"""Why `alternating` is the default somewhere."""


def default_policy(crowded: bool, window: int | None = None) -> str:
    """The policy of a ring for which the user names none.

    crowded: the stages and the drafter share the cores of one machine. window: the most segments
    under way that the user allows, if he does: it asks for segments that overlap, and `alternating`
    has only one.
    """
    return "alternating" if crowded and window is None else "gardener"


def default_comparison(defaults: Collection[str]) -> tuple[str, ...]:
    """The policies to compare on rings with these default policies: the baselines, and what would
    run there."""
    baselines = [name for name in MAIN if name != "gardener"]
    return (*baselines, *(name for name in ("gardener", "alternating") if name in defaults))


def make(name: str, bounds: Bounds) -> Policy:
    """A policy of this name, for one request. Raises KeyError if there is none."""
    return POLICIES[name](bounds)


__all__ = [
    "FLOOR",
    "MAIN",
    "MOST",
    "POLICIES",
    "SHARING",
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
    "SharingPolicy",
    "View",
    "default_comparison",
    "default_policy",
    "make",
]
