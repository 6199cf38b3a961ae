"""Tokens -> text, while they come: in the end exactly what the tokenizer makes of all of them.

Imports `tokenizers` alone, so a test needs no model.
"""

import codecs
import re
from asyncio import CancelledError
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Tokenizer

LOST = "\N{REPLACEMENT CHARACTER}"
"""Stands for bytes that are no character, or none yet."""

WINDOW = 24
"""Tokens whose text is certain after which most of them are forgotten."""

CONTEXT = 8
"""Characters before a place that must be decoded again to have the text after it right: decoders
drop or add something at the beginning of what they get, and a character has four bytes at most."""

BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
"""A token that is one byte, for a decoder with byte fallback."""


_PLAIN = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
LETTER_OF: dict[int, str] = {byte: chr(byte) for byte in _PLAIN} | {
    byte: chr(256 + number)
    for number, byte in enumerate(byte for byte in range(256) if byte not in _PLAIN)
}
"""The letters with which byte-level tokenizers write bytes (GPT-2's `bytes_to_unicode`)."""

_BYTE_OF = {letter: byte for byte, letter in LETTER_OF.items()}

LARGEST = 2**32 - 1
"""The largest number that may be a token's."""


@dataclass(frozen=True)
class Traits:
    """What must be known of a tokenizer.

    special     what its special tokens are written like; they are no text
    added       what its added tokens are written like; they stand for these letters
    byte_level  its tokens are written with a letter for each byte
    falls_back  byte tokens that follow on each other are decoded as a whole: they are characters
                if all of them are, else each is U+FFFD
    """

    special: frozenset[str]
    added: frozenset[str]
    byte_level: bool
    falls_back: bool


@lru_cache(maxsize=8)
def traits(tokenizer: Tokenizer) -> Traits:
    """Of a tokenizer that nobody changes any more."""
    added = list(tokenizer.get_added_tokens_decoder().values())
    special = frozenset(each.content for each in added if each.special)
    byte_level = falls_back = False
    if tokenizer.decoder is not None:
        with _survived([]):
            falls_back = "é" in tokenizer.decoder.decode(["x", "<0xC3>", "<0xA9>", "x"])
        with _survived([]):
            byte_level = tokenizer.decoder.decode([LETTER_OF[0xC3], LETTER_OF[0xA9]]) == "é"
    names = frozenset(each.content for each in added)
    return Traits(special, names, byte_level, falls_back)


class ByteRun:
    """The byte tokens at the end of a text, for a decoder with byte fallback."""

    def __init__(self) -> None:
        self.tokens = 0
        self.text = ""  # its characters, should all bytes that come be some
        self._broken = False  # none of it is a character
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    @property
    def unfinished(self) -> bool:
        """It ends within a character, so none of it is one as it stands."""
        return bool(self._utf8.getstate()[0])

    def push(self, byte: int) -> None:
        """One byte more."""
        self.tokens += 1
        if self._broken:
            return
        try:
            self.text += self._utf8.decode(bytes([byte]))
        except UnicodeDecodeError:
            self._broken, self.text = True, ""


class Detokenizer:
    """Text of a growing answer. What `push` gave, and `rest` at the end, is what the tokenizer
    decodes of prompt and answer together, less what it decodes of the prompt alone.

    The two texts may differ before the prompt's ends, where the answer completes a character that
    the prompt began, or makes bytes of it invalid. Then "less" means: from the first character on
    that differs. Special tokens and numbers without a token are no text.

    Given out is what no further token can change. Not yet certain are the bytes of a character that
    is unfinished (they look like one U+FFFD at the end) and, with byte fallback, all byte tokens
    since the last other one. Each push decodes a window of tokens, whatever the text's length.

    A tokenizer that fails ends nothing: the tokens that it fails on are U+FFFD, and `fault` says
    why.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int] = (),
        shown: Collection[str] = (),
    ) -> None:
        """`prompt`: what the text follows on, which is no part of it. `shown`: special tokens that
        are text all the same; what follows on one is decoded as a text of its own."""
        self._tokenizer, self._traits = tokenizer, traits(tokenizer)
        self._shown = self._traits.special.intersection(shown)
        self._run = ByteRun()
        self._faults: list[str] = []
        self._window = self._tail([token for token in prompt if self._is_text(token)])
        for token in self._window:
            self._follow(token)
        if not self._run.unfinished:
            self._run.text = ""  # it is the prompt's
        self._certain = len(self._window) - self._run.tokens  # tokens that no run holds back
        self._begin: str | None = self._decoded(self._window) or ""  # None: all of it has passed
        self._given = 0  # characters of the window that are the prompt's or were given out

    @property
    def fault(self) -> str | None:
        """What went wrong first, if something did."""
        return self._faults[0] if self._faults else None

    @property
    def unsure(self) -> str:
        """Characters of byte tokens that `push` holds back, and gives out later if no byte that is
        none follows."""
        return self._run.text

    def push(self, tokens: Sequence[int]) -> str:
        """The text that these tokens make certain."""
        if not self._shown:
            return self._push(tokens)
        text, begin = "", 0
        for place, token in enumerate(tokens):
            name = written(self._tokenizer, token)
            if name in self._shown:
                text += self._push(tokens[begin:place]) + self.rest() + str(name)
                self._begin_anew()
                begin = place + 1
        return text + self._push(tokens[begin:])

    def _begin_anew(self) -> None:
        """What follows is a text of its own."""
        self._window, self._run = [], ByteRun()
        self._certain, self._given, self._begin = 0, 0, None

    def _push(self, tokens: Sequence[int]) -> str:
        fresh = [token for token in tokens if self._is_text(token)]
        self._window += fresh
        for token in fresh:
            self._follow(token)
        certain = len(self._window) - self._run.tokens
        if certain == self._certain:
            return ""
        text = self._decoded(self._window[:certain])
        if text is None:
            lost = LOST * (len(self._window) - self._certain)
            del self._window[self._certain :]
            self._run = ByteRun()
            return lost
        self._certain = certain
        new = self._pass(text, len(text) - text.endswith(LOST))
        if certain > WINDOW and self._begin is None:
            self._forget(text)
        return new

    def rest(self) -> str:
        """The text after what was given out, should no more tokens follow."""
        text = self._decoded(self._window)
        if text is None:
            return LOST * (len(self._window) - self._certain)
        given, begin = self._given, self._begin
        rest = self._pass(text, len(text))
        self._given, self._begin = given, begin
        return rest

    def _pass(self, text: str, end: int) -> str:
        """Give out the window's text up to here."""
        if self._begin is not None:
            same = common(self._begin, text[:end])
            if same == end < len(self._begin):
                return ""
            self._given, self._begin = same, None
        new = text[self._given : end]
        self._given = end
        return new

    def _forget(self, text: str) -> None:
        """Keep no more of the window than what follows needs."""
        certain = self._window[: self._certain]
        tail = self._tail(certain)
        kept = self._decoded(tail)
        if kept is not None and len(tail) < len(certain):
            self._given += len(kept) - len(text)
            del self._window[: len(certain) - len(tail)]
            self._certain = len(tail)

    def _tail(self, tokens: list[int]) -> list[int]:
        """The least end of the tokens after which everything is decoded as it is after all."""
        length = 4
        while length < len(tokens):
            tail = tokens[-length:]
            cut_run = all(self._byte(token) is not None for token in tail)
            if not cut_run and len(self._decoded(tail) or "") >= CONTEXT:
                return tail
            length *= 2
        return list(tokens)

    def _follow(self, token: int) -> None:
        byte = self._byte(token)
        if byte is not None:
            self._run.push(byte)
        elif self._run.tokens:
            self._run = ByteRun()

    def _byte(self, token: int) -> int | None:
        """The byte that a token is, if that makes a difference."""
        if not self._traits.falls_back:
            return None
        found = BYTE.fullmatch(written(self._tokenizer, token) or "")
        return int(found[1], 16) if found else None

    def _is_text(self, token: int) -> bool:
        name = written(self._tokenizer, token)
        return name is not None and name not in self._traits.special

    def _decoded(self, tokens: Sequence[int]) -> str | None:
        """None where the tokenizer fails."""
        with _survived(self._faults):
            return self._tokenizer.decode(tokens, skip_special_tokens=True)
        return None


def common(one: str, other: str) -> int:
    """How many characters two texts have in common at the beginning."""
    pairs = zip(one, other, strict=False)
    differing = (at for at, (first, second) in enumerate(pairs) if first != second)
    return next(differing, min(len(one), len(other)))


def written(tokenizer: Tokenizer, token: int) -> str | None:
    """A token as the vocabulary writes it; None for a number without one: models have more rows
    than there are tokens."""
    return tokenizer.id_to_token(token) if 0 <= token <= LARGEST else None


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """One token alone, special ones as they are written."""
    return _plainly(tokenizer, [token])


@lru_cache(maxsize=1 << 16)
def token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """What a token adds to a text, in UTF-8; it may be part of a character. Special tokens, which
    add nothing, as they are written."""
    known, name = traits(tokenizer), written(tokenizer, token)
    if name is None:
        return b""
    if name in known.added:
        return name.encode()
    if known.byte_level and all(letter in _BYTE_OF for letter in name):
        return bytes(_BYTE_OF[letter] for letter in name)
    if known.falls_back and (found := BYTE.fullmatch(name)):
        return bytes([int(found[1], 16)])
    once, twice = (_plainly(tokenizer, [token] * times) for times in (1, 2))
    # Decoders strip a blank from the beginning of a text; the second of two tokens has it.
    return twice.removeprefix(once).encode()


def _plainly(tokenizer: Tokenizer, tokens: list[int]) -> str:
    with _survived([]):
        return str(tokenizer.decode(tokens, skip_special_tokens=False))
    return LOST * len(tokens)


@contextmanager
def _survived(faults: list[str]) -> Iterator[None]:
    """Note what goes wrong in a tokenizer. A panic in Rust is no Exception, and cannot be named."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError):
        raise
    except BaseException as error:
        if not faults:
            faults.append(f"{type(error).__name__}: {error}")
