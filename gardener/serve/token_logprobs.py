"""Log probabilities of tokens, as OpenAI writes them for chats and for completions."""

from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from gardener.holder.detokenizer import LOST, Detokenizer, token_bytes, traits, written
from gardener.holder.piece import Piece
from gardener.protocol.logprobs import TokenLogprobs

LEAST = -9999.0
"""Stands for minus infinity, which JSON cannot write."""


class Told(NamedTuple):
    """A token, what was said of it, and where in the text it begins."""

    token: int
    said: TokenLogprobs
    offset: int


def named(tokenizer: Tokenizer, token: int) -> str:
    """A token as text. Part of a character is `bytes:` and these, as OpenAI's completions had it,
    so that no two tokens look the same for that reason."""
    raw = token_bytes(tokenizer, token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def of_chat(tokenizer: Tokenizer, told: Sequence[Told]) -> list[dict[str, Any]]:
    """Of each token: what it is, and the best ones in its place."""
    return [
        {
            **_entry(tokenizer, each.token, each.said.pick),
            "top_logprobs": [_entry(tokenizer, *best) for best in each.said.best],
        }
        for each in told
    ]


def _entry(tokenizer: Tokenizer, token: int, log: float) -> dict[str, Any]:
    return {
        "token": named(tokenizer, token),
        "logprob": max(log, LEAST),
        "bytes": list(token_bytes(tokenizer, token)),
    }


class TextOffsets:
    """Where in the text of an answer its tokens begin, counted in characters."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int] = (), shown: Collection[str] = ()
    ) -> None:
        """As `TextStream` has them."""
        self._tokenizer = tokenizer
        self._silent = traits(tokenizer).special.difference(shown)
        self._text = Detokenizer(tokenizer, prompt, shown)
        self._at = 0

    def of(self, token: int) -> int:
        """Of the next token. One that is part of a character begins where that begins, one that
        is no text where the text after it does."""
        before = self._text.rest()
        behind = self._at + len(before)
        name = written(self._tokenizer, token)
        if name is None or name in self._silent:
            return behind
        whole = self._at + len(self._text.unsure) if LOST in before else behind
        new = self._text.push([token])
        self._at += len(new)
        # Bytes that were no character yet are none for certain now, unless it goes on with them.
        follows = new.startswith(before) and new + self._text.rest() != before
        return behind if follows else whole


class ToldTokens:
    """The tokens of an answer whose log probabilities are told: those that begin in its text.

    A token is told once text behind its beginning is given out. What is left when the answer ends
    begins behind the text: tokens of the stop text, and the token that ended it. OpenAI lists none
    of them.
    """

    def __init__(self, offsets: TextOffsets) -> None:
        self._offsets = offsets
        self._waiting: deque[Told] = deque()
        self._length = 0  # of the text that was given out

    def push(self, piece: Piece) -> list[Told]:
        """The tokens that can be told with this piece."""
        self._length += len(piece.text)
        for token, said in zip(piece.tokens, piece.logprobs, strict=True):
            self._waiting.append(Told(token, said, self._offsets.of(token)))
        found = []
        while self._waiting and self._waiting[0].offset < self._length:
            found.append(self._waiting.popleft())
        return found

    def rest(self, finish: str | None) -> list[Told]:
        """Those that are left, where nothing in the text ended it: `finish` as a session has it."""
        left = [] if finish in ("eos", "stop") else [*self._waiting]
        self._waiting.clear()
        return left


def of_text(tokenizer: Tokenizer, told: Sequence[Told]) -> dict[str, list[Any]]:
    """The lists of a completion's `logprobs`."""
    return {
        "tokens": [named(tokenizer, each.token) for each in told],
        "token_logprobs": [max(each.said.pick, LEAST) for each in told],
        "top_logprobs": [_best(tokenizer, each) for each in told],
        "text_offset": [each.offset for each in told],
    }


def _best(tokenizer: Tokenizer, told: Told) -> dict[str, float]:
    """The best tokens, and the one that was picked, which OpenAI adds to them."""
    best = {named(tokenizer, token): max(log, LEAST) for token, log in told.said.best}
    return best | {named(tokenizer, told.token): max(told.said.pick, LEAST)}
