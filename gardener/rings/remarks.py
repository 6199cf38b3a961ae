"""What the user is told about a ring that starts, and about one that stands."""

import re
import time
from collections.abc import Sequence

from gardener.decoding.curves import steep
from gardener.model.quants import AUTO
from gardener.protocol.cards import ring_arithmetic
from gardener.protocol.messages import Card
from gardener.rings.cores import cores
from gardener.rings.settings import RingSettings
from gardener.runtime.wording import Say


def ignore(line: str) -> None:
    """Drop the line."""


class Start:
    """Tells the user how far the start of a local ring is."""

    def __init__(self, stages: int, say: Say, heard: Say) -> None:
        self._stages, self._say, self._heard = stages, say, heard
        self._began = time.monotonic()

    def begin(self, model: str) -> None:
        """The stages are being started."""
        whom = "1 stage" if self._stages == 1 else f"{self._stages} stages"
        self._say(f"starting {whom} of {model} here, which takes some seconds")

    def heard(self, line: str) -> None:
        """A stage printed this line."""
        self._heard(line)
        if loaded := re.match(r"stage (\d+): .* loaded in ", line):
            self._say(
                f"stage {loaded[1]} of {self._stages} has loaded its layers ({self._since()})"
            )

    def end(self) -> None:
        """All stages stand."""
        self._say(f"the ring stands ({self._since()})")

    def _since(self) -> str:
        return f"{time.monotonic() - self._began:.1f} s"


def tell_sharing(settings: RingSettings, say: Say) -> None:
    """Say how the stages of a local ring share this machine's processor."""
    if settings.device != "cpu":
        return
    threads = settings.threads_each
    chosen = "as --threads says" if settings.threads is not None else "--threads changes that"
    say(
        f"each stage here computes with {threads} thread{'s' * (threads != 1)} "
        f"on {cores()} core{'s' * (cores() > 1)} ({chosen})"
    )


def tell_choice(settings: RingSettings, cards: Sequence[Card], say: Say) -> None:
    """Say what the stages of a local ring compute in, where that was left to them."""
    if settings.local is not None and settings.quant == AUTO:
        say(f"--quant auto: the stages compute in {ring_arithmetic(cards)}")


def tell_steep_costs(cards: Sequence[Card], policies: Sequence[str], say: Say) -> None:
    """Name the stages where guesses hardly pay. The nodes print it too, but few people look there.
    Nothing is said where only `plain` runs, which guesses nothing."""
    if tuple(policies) == ("plain",):
        return
    for card in cards:
        if why := steep(card.costs):
            say(f"stage {card.stage}: {why}")
