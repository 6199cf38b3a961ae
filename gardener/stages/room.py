"""How much requests may take of a stage, and whether one more fits."""

from dataclasses import dataclass

from gardener.errors import StageFailed
from gardener.protocol.cards import kv_slots
from gardener.protocol.messages import Card, Open

MOST_REQUESTS = 256
"""Most requests at one stage that run or are kept."""


@dataclass(frozen=True)
class Room:
    """What a stage has for its requests. The holder knows both from the card, and asks for no more.

    slots    for whose keys and values there is memory; None: not bounded
    longest  most tokens of one request, prompt and answer together; None: whatever memory takes
    """

    slots: int | None = None
    longest: int | None = None

    @classmethod
    def of(cls, card: Card) -> "Room":
        """As a stage says it of itself."""
        return cls(kv_slots(card), card.longest or None)

    def check(self, message: Open, used: int, running: int, kept: int) -> None:
        """Raise StageFailed if there is no room for this request beside those that run and are
        kept, for which `used` slots are set aside."""
        if running + kept >= MOST_REQUESTS:
            raise StageFailed(f"{running} requests run and {kept} are kept, which is the most")
        if self.longest is not None and message.context > self.longest:
            raise StageFailed(
                f"this stage takes requests of up to {self.longest} tokens, prompt and answer "
                f"together (--context), and this one may have {message.context}"
            )
        if self.slots is not None and used + message.slots > self.slots:
            raise StageFailed(
                f"there is memory for the keys and values of {self.slots} tokens, {used} are set "
                f"aside for {running} running and {kept} kept requests, and this one may need "
                f"{message.slots}"
            )


BOUNDLESS = Room()
"""That of a stage that has not said how much it has."""
