"""Who answers: what a chat needs of a ring or a server."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gardener.cli.chat.dialogue import ChatMessage
from gardener.cli.chat.knobs import Knobs
from gardener.errors import GardenerError

RETRY = "/retry asks again"


class ServerError(GardenerError):
    """A server does not answer, or says that it cannot. `out`: what to do in a chat."""

    def __init__(self, told: str, out: str = RETRY) -> None:
        super().__init__(told)
        self.out = out


def nothing() -> None:
    """For who need not be told."""


@dataclass(frozen=True, slots=True)
class Part:
    """Text as it comes; `guessed`: its tokens had been guessed, and were accepted."""

    text: str
    guessed: bool = False


@dataclass
class TurnFigures:
    """What one answer cost. None: nobody said. Times are in seconds.

    prompt       tokens of the prompt, `cached` of which were not computed again
    tokens       of the answer
    first        the time until the first text
    decode       the time from there to the last one
    accepted     tokens that had been guessed; `missed`: tokens that had not; `drafted`: guesses
    segments     that went round the ring, with guesses or without
    finish       why it ended: stop, length, context, stopped, or error
    note         what else there is to say of it, in a sentence
    """

    prompt: int | None = None
    cached: int | None = None
    tokens: int = 0
    first: float | None = None
    decode: float = 0.0
    accepted: int | None = None
    missed: int | None = None
    drafted: int | None = None
    segments: int | None = None
    policy: str | None = None
    finish: str = "error"
    note: str | None = None

    def came(self, seconds: float) -> None:
        """Text came, so long after the question."""
        if self.first is None:
            self.first = seconds
        self.decode = seconds - self.first

    @property
    def rate(self) -> float | None:
        """Tokens per second, after the first one."""
        return (self.tokens - 1) / self.decode if self.decode > 0 and self.tokens > 1 else None


class Source(Protocol):
    """A ring or a server. `changed` is called when there is trouble between two questions."""

    changed: Callable[[], None]

    @property
    def model(self) -> str:
        """What it is called."""

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together, if that is known."""

    @property
    def trouble(self) -> str:
        """What it is, shortly; empty: none."""

    def answer(
        self, messages: Sequence[ChatMessage], knobs: Knobs, figures: TurnFigures
    ) -> AsyncGenerator[Part]:
        """The answer to these, as it comes; `figures` are filled in meanwhile. To cancel the
        reader ends it. Raises GardenerError, after all text there was."""
