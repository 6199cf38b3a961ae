"""What a round is told, its events, and what it answers, its commands."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from gardener.decoding.costs import Costs
from gardener.decoding.tree import Node, Opinion
from gardener.protocol.features import NO_FEATURES, Features
from gardener.protocol.logprobs import TokenLogprobs
from gardener.protocol.messages import Advance, Close, FeatureTensors, Open, Segment, Verdict


@dataclass(slots=True)
class Moment:
    """What is known of the time at which something happens. (It is not frozen, because one is made
    for everything that happens; nobody changes it.)

    now          seconds of any clock
    costs        of the ring, for a text of the present length
    speculating  guesses are worth their time
    others       requests that write at the same time
    dearer       with guesses a token took so many times as long as without, when they were turned
                 off last; 0: they were not
    """

    now: float = 0.0
    costs: Costs = field(default_factory=lambda: Costs.flat(1))
    speculating: bool = True
    others: int = 0
    dearer: float = 0.0


@dataclass(frozen=True, slots=True)
class Grown:
    """A drafter's answer: for each node that was to be expanded, what may follow it. `seconds`:
    what it took."""

    children: tuple[tuple[int, Opinion], ...]
    source: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict came back from the last stage, with these features, and with log probabilities of
    its picks if they were asked for."""

    verdict: Verdict
    features: Features = NO_FEATURES
    logprobs: tuple[TokenLogprobs, ...] = ()

    def logprobs_of(self, nodes: Sequence[int]) -> tuple[TokenLogprobs, ...]:
        """Those of the picks after these nodes, which this verdict has judged."""
        if not self.logprobs:
            return ()
        return tuple(self.logprobs[self.verdict.ids.index(node)] for node in nodes)


@dataclass(frozen=True, slots=True)
class Room:
    """The ring can take a segment. `overdue`: it has waited for the drafter for long enough.
    `rows`: how many of the policy's own wishes; None: as many as it finds right. `prompt`: most
    rows of the prompt; None: as the request has it."""

    overdue: bool = False
    rows: int | None = None
    prompt: int | None = None


@dataclass(frozen=True, slots=True)
class Abort:
    """The request ends here, unfinished: `lost` (the ring is broken), `failed` (a stage or a
    drafter could not go on), `abandoned` (nobody reads the answer)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Emit:
    """These tokens are now part of the answer; `nodes` are the same in the tree, `features` those
    of the rows before them, one tensor per tap, for the drafters. `logprobs`: of these tokens, if
    they were asked for."""

    tokens: tuple[int, ...]
    nodes: tuple[Node, ...] = field(default=(), compare=False)
    features: FeatureTensors = field(default=(), compare=False)
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Feed:
    """Give the drafters the features of the next rows of the prompt, one tensor per tap."""

    features: FeatureTensors


@dataclass(frozen=True, slots=True)
class Send:
    """Tell the ring."""

    message: Open | Segment | Advance | Close


@dataclass(frozen=True, slots=True)
class Grow:
    """Ask a drafter what may follow these nodes."""

    nodes: tuple[int, ...]
    source: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is complete: `eos` (or a stop token), `stop` (a stop string), `length` or
    `context`; or it was aborted, for the reason given; or it has `failed`, since the next row of
    the text is `broken`: that is the first layer that computed no numbers, see `messages.Broken`.
    """

    reason: str
    broken: int | None = None


Event: TypeAlias = Grown | Judged | Abort
"""What happens to a request, but for `Room`, of which the ring decides."""

Command: TypeAlias = Emit | Feed | Send | Grow | Finish
