"""What a route needs of an answer that is under way, whoever writes it."""

from collections.abc import Sequence
from typing import Protocol, Self, Unpack

from gardener.decoding.events import Moment
from gardener.decoding.limits import Counts
from gardener.decoding.policy import Policy
from gardener.errors import GardenerError
from gardener.holder.holder import Holder
from gardener.holder.piece import Piece
from gardener.holder.prompter import Prompter
from gardener.protocol.messages import Card
from gardener.protocol.sampling import Sampling
from gardener.rings.opened import Terms

COMPLETE = frozenset(("eos", "stop", "length", "context"))
"""Reasons for which an answer is complete; with any other it broke, or was ended from outside."""


class Guessed(Protocol):
    """How the tokens of an answer are guessed: a `Speculation` is one."""

    @property
    def asked(self) -> int:
        """Tokens of the prompt."""

    @property
    def policy(self) -> Policy:
        """By which it is guessed."""

    @property
    def counts(self) -> Counts:
        """What it cost and brought so far."""

    @property
    def moment(self) -> Moment:
        """What was known of the ring when something happened to it last."""


class Asked(Protocol):
    """An async iterator of pieces; a session of the holder is one. It raises what went wrong after
    the last piece that was written until then."""

    @property
    def number(self) -> int:
        """Of the request, as it is shown: it counts those of a ring from 1."""

    @property
    def speculation(self) -> Guessed:
        """How its tokens are guessed: the policy, and what was counted."""

    @property
    def finish_reason(self) -> str | None:
        """None while it runs; see `events.Finish` and `events.Abort`."""

    @property
    def interruptions(self) -> int:
        """How often the ring broke while it was written."""

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were not computed again."""

    @property
    def waited(self) -> float | None:
        """Seconds until its turn came; None: it has not come."""

    @property
    def sampling(self) -> Sampling:
        """The settings that it runs with, the seed among them."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Piece: ...

    def close(self) -> None:
        """End it where it stands, if it has not ended."""

    def fail(self, error: GardenerError, reason: str = "failed") -> None:
        """End it, because of `error`."""


class Ring(Protocol):
    """What a route needs of a ring; an `OpenRing` is one."""

    @property
    def prompter(self) -> Prompter:
        """Makes prompts for its model."""

    @property
    def holder(self) -> Holder:
        """What there is to see of it."""

    @property
    def stages(self) -> tuple[Card, ...]:
        """What the stages say about themselves."""

    @property
    def exactness(self) -> str:
        """How exact it is, in one sentence."""

    @property
    def longest(self) -> int:
        """Most tokens of an answer where nobody says how many."""

    @property
    def waiting(self) -> int:
        """Answers that wait for their turn."""

    def check_room(self) -> None:
        """Raise Busy if nobody else may wait."""

    def ask_tokens(self, tokens: Sequence[int], **said: Unpack[Terms]) -> Asked:
        """Begin an answer, see `OpenRing.ask_tokens`."""
