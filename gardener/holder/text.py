"""The text of an answer, piece by piece, and the exact place where a stop string ends it."""

from collections.abc import Collection, Sequence

from tokenizers import Tokenizer

from gardener.holder.detokenizer import Detokenizer, traits, written

LONGEST_STOP = 256
"""Characters of a stop string at most: what may begin one is looked at with each token, on the
event loop."""


class TextStream:
    """Decodes a growing answer. `push` says whether a stop string has come; `take` gives new text.

    An answer ends with the first token with which its text, as far as it goes then, holds a stop
    string. Text that may be the beginning of one is held back until it is clear that it is not; the
    stop string that ends the answer is never given out.

    Special tokens are no text. Those that a stop string names (`<|im_end|>`) are read as if they
    were, where stop strings are looked for; those in `shown` are text like any other.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int] = (),
        stops: Sequence[str] = (),
        least: int = 0,
        shown: Collection[str] = (),
    ) -> None:
        """`prompt`: the tokens that the text follows on. A stop string that one of the first
        `least` tokens completes is text like any other. It may begin there, if a later token
        completes it."""
        if not all(stops):
            raise ValueError("a stop string must not be empty")
        self._tokenizer = tokenizer
        self._tokens = Detokenizer(tokenizer, prompt, shown)
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._initials = frozenset(stop[0] for stop in stops)
        special = traits(tokenizer).special.difference(shown) if stops else ()
        self._named = {each for each in special if any(each in stop for stop in stops)}
        self._left = least  # tokens that end nothing yet
        self._fresh: list[int] = []  # tokens to decode when text is wanted
        self._held = ""
        self._hidden: list[tuple[int, str]] = []  # special tokens, and where in the held text
        self._searched = 0  # characters of the held text without a stop string that counts
        self._ready = ""
        self.stopped = False

    @property
    def fault(self) -> str | None:
        """Why some of the text is U+FFFD: the tokenizer failed."""
        return self._tokens.fault

    def push(self, token: int) -> bool:
        """Add one token; true if the text now holds a stop string."""
        if self.stopped:
            return True
        if not self._stops:
            self._fresh.append(token)
            return False
        self._held += self._tokens.push([token])
        text = self._held + self._tokens.unsure
        if (name := written(self._tokenizer, token)) in self._named:
            text = self._held + self._tokens.rest()
            self._hidden.append((len(text), str(name)))
        may_end = not self._left
        self._left -= not may_end
        if may_end and self._find(text) is not None:
            text = self._held + self._tokens.rest()
            if (found := self._find(text)) is not None:
                self._ready += text[:found]
                self._held, self.stopped = "", True
                return True
        self._let_go(text)
        return False

    def take(self, final: bool = False) -> str:
        """Text that is ready since the last call; with `final`, what was held back as well."""
        self._ready += self._tokens.push(self._fresh) if self._fresh else ""
        self._fresh = []
        text, self._ready = self._ready, ""
        if final and not self.stopped:
            text += self._held + self._tokens.rest()
            self._held = ""
        return text

    def _find(self, text: str) -> int | None:
        """Where in the text the first stop string begins that is complete since the last token."""
        seen = self._with_hidden(text)
        starts = (seen.find(stop, max(0, self._searched - len(stop) + 1)) for stop in self._stops)
        found = [start for start in starts if start >= 0]
        return self._without_hidden(min(found)) if found else None

    def _let_go(self, text: str) -> None:
        """Give out the held text before what a stop string may begin with."""
        seen = self._with_hidden(text)
        kept = len(seen) - self._tail(seen)
        given = min(self._without_hidden(kept), len(self._held))
        after = self._after_hidden()
        self._hidden = [
            (place - given, name)
            for (place, name), end in zip(self._hidden, after, strict=True)
            if end > kept
        ]
        self._ready += self._held[:given]
        self._held = self._held[given:]
        self._searched = len(self._with_hidden(text[given:]))

    def _with_hidden(self, text: str) -> str:
        """The text as stop strings are looked for in it."""
        parts, at = [], 0
        for place, name in self._hidden:
            parts += [text[at:place], name]
            at = place
        return "".join(parts) + text[at:]

    def _without_hidden(self, index: int) -> int:
        """The place in the text itself. One within a special token is where that stands."""
        for (_, name), end in reversed(list(zip(self._hidden, self._after_hidden(), strict=True))):
            index -= max(0, min(len(name), index - (end - len(name))))
        return index

    def _after_hidden(self) -> list[int]:
        """Where each special token ends in what `_with_hidden` gives."""
        ends, added = [], 0
        for place, name in self._hidden:
            added += len(name)
            ends.append(place + added)
        return ends

    def _tail(self, seen: str) -> int:
        """Length of the longest end of the text that a stop string begins with.

        Where the text is held for one, its beginning is found first. Whatever is passed over is
        given out, and not looked at again: that makes this linear in the text, as a whole.
        """
        for place in range(max(0, len(seen) - self._longest + 1), len(seen)):
            if seen[place] in self._initials:
                end = seen[place:]
                if any(len(stop) > len(end) and stop.startswith(end) for stop in self._stops):
                    return len(end)
        return 0


def check_stops(stops: Sequence[str]) -> None:
    """Raises ValueError for stop strings that are too long."""
    for number, stop in enumerate(stops, 1):
        if len(stop) > LONGEST_STOP:
            raise ValueError(
                f"stop {number} has {len(stop)} characters: give it {LONGEST_STOP} at most"
            )
