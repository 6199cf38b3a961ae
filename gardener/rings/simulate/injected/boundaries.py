"""A short request in a small ring, of which each machine dies at each message boundary.

Who looks from outside sees of a process only what it writes and when. So a death before each of its
writes is a death between any two of its messages; one before each piece that it hears tells apart
what it was about to hear.
"""

from collections.abc import Iterator, Sequence

from gardener.decoding.policy import Bounds
from gardener.protocol.sampling import GREEDY
from gardener.rings.simulate.injected.case import LAYERS, Ask, Case
from gardener.rings.simulate.injected.faults import Fault, When
from gardener.rings.simulate.injected.run import play
from gardener.rings.simulate.profile import LinkTerms, Profile
from gardener.rings.simulate.ring import SimulatedModel

PROMPT = (1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2)
TEXT = (3, 4, 5, 9, 1, 2, 3, 7)
STAGES = 2

PROFILE = Profile(
    model=((1, 40.0), (16, 40.0)),
    row_bytes=4,
    link=LinkTerms(1.0, 50.0),
    drafter=((1, 5.0),),
    name="boundaries",
)


def undisturbed(stages: int = STAGES, faults: Sequence[Fault] = ()) -> Case:
    """The request, with these faults."""
    ask = Ask(PROMPT, TEXT, len(TEXT) - 1, GREEDY, "gardener", Bounds(floor=0.05), 0.0, None, None)
    model = SimulatedModel(LAYERS, 1)
    return Case(0, stages, PROFILE, model, ("ngram",), True, 8, 60.0, (ask,), tuple(faults))


def at_each_boundary(
    stages: int = STAGES, kind: str = "crash", away: float = 0.25, first: Fault | None = None
) -> Iterator[Case]:
    """One case for each boundary: a stage dies and is back after `away` seconds; as many for the
    holder, of whom another one takes the place. `first`: what has happened before, so that the
    ring is broken at many of the boundaries, and is closed again."""
    before = () if first is None else (first,)
    counts = play(undisturbed(stages, before))
    for what, passed in (("send", counts.sends), ("hear", counts.hears)):
        for who in range(stages + 1):
            mine = kind if who else "holder crash"
            for number in range(1, passed[who] + 1):
                fault = Fault(mine, who, away, When(what, number, who))
                yield undisturbed(stages, (*before, fault))
