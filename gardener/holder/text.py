"""Tokens -> text, piece by piece, and the exact place where a stop string ends it.

Imports `tokenizers` alone, so a test needs no model.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class Detokenizer:
    """Text of a growing sequence of tokens; bytes of an unfinished character are held back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """The text that one more token completes."""
        return self._stream.step(self._tokenizer, token) or ""


class TextStream:
    """Decodes a growing answer. `push` says whether a stop string has come; `take` gives new text.

    Text that may be the beginning of a stop string is held back until it is clear that it is not;
    the stop string that ends the answer is never given out.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), least: int = 0) -> None:
        """A stop string that one of the first `least` tokens completes is text like any other. It
        may begin there, if a later token completes it."""
        if not all(stops):
            raise ValueError("a stop string must not be empty")
        self._tokens = Detokenizer(tokenizer)
        self._stops = tuple(stops)
        self._left = least  # tokens that end nothing yet
        self._held = ""
        self._ready = ""
        self.stopped = False

    def push(self, token: int) -> bool:
        """Add one token; true if the text now holds a stop string."""
        if self.stopped:
            return True
        self._held += self._tokens.push(token)
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if self._left:
            self._left -= 1
        elif found:
            self._ready += self._held[: min(found)]
            self._held = ""
            self.stopped = True
            return True
        keep = self._tail()
        self._ready += self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return False

    def take(self, final: bool = False) -> str:
        """Text that is ready since the last call; with `final`, what was held back as well."""
        text = self._ready + (self._held if final and not self.stopped else "")
        self._ready = ""
        if final:
            self._held = ""
        return text

    def _tail(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        return max(
            (
                length
                for stop in self._stops
                for length in range(1, len(stop))
                if self._held.endswith(stop[:length])
            ),
            default=0,
        )


class StopStrings:
    """Told of one token after the other, answers whether the text now holds a stop string. It does
    not give out the text itself."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], least: int = 0) -> None:
        """`least`: as for `TextStream`."""
        self._stream = TextStream(tokenizer, stops, least) if stops else None

    def __call__(self, token: int) -> bool:
        if self._stream is None:
            return False
        found = self._stream.push(token)
        self._stream.take()
        return found
