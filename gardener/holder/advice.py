"""How a stage is called in a sentence, and what to do about it: of the cards of a ring, the
holder's first. What they say comes from others, and is made printable."""

from collections.abc import Callable, Sequence

from gardener.protocol.messages import Card
from gardener.runtime.wording import printable


def called(stage: int, cards: Sequence[Card]) -> str:
    """`stage 2 at 10.0.0.3:7002`, as the peer before it dials it; the address is left out where
    none is known."""
    before = cards[stage - 1] if 0 < stage < len(cards) else None
    where = printable(before.peer) if before else ""
    return f"stage {stage} at {where}" if where else f"stage {stage}"


def start_again(stage: int, cards: Sequence[Card]) -> str:
    """What to do about a stage that is gone, with the very command, if it has told it."""
    card = cards[stage] if 0 < stage < len(cards) else None
    if card is None or not card.command:
        return f"start stage {stage} again"
    return f"start stage {stage} again on {printable(card.name)} with `{printable(card.command)}`"


class Advice:
    """The same for the ring as it is, of which `cards` gives the cards. `about`: what to do about a
    lost stage, where whoever started all of them says so; nobody else need know where they are."""

    def __init__(
        self, cards: Callable[[], Sequence[Card]], about: Callable[[int], str] | None = None
    ) -> None:
        self.cards = cards
        self._about = about

    @property
    def brief(self) -> "Advice":
        """For those who ask from elsewhere: without addresses, machines and commands."""
        return Advice(tuple, self._about)

    def called(self, stage: int) -> str:
        """See `called`."""
        return called(stage, () if self._about else self.cards())

    def about(self, stage: int) -> str:
        """See `start_again`."""
        return self._about(stage) if self._about else start_again(stage, self.cards())
