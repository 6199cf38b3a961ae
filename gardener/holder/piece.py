"""What comes of an answer at a time."""

from dataclasses import dataclass, field

from gardener.protocol.logprobs import TokenLogprobs


@dataclass(frozen=True, slots=True)
class Piece:
    """What was accepted at once: tokens, and the text that they complete. Text may be empty where
    a character is unfinished, or where it may be the beginning of a stop string. `logprobs`: of
    these tokens, if they were asked for. `missed`: nobody had guessed the last of them."""

    tokens: tuple[int, ...]
    text: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()
    missed: bool = field(default=False, compare=False)
