"""Log probabilities of tokens, as OpenAI writes them for chats and for completions."""

import codecs
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from gardener.holder.detokenizer import token_bytes, traits, written
from gardener.holder.session import Piece

LEAST = -9999.0
"""Stands for minus infinity, which JSON cannot write."""


def named(tokenizer: Tokenizer, token: int) -> str:
    """A token as text. Part of a character is `bytes:` and these, as OpenAI's completions had it,
    so that no two tokens look the same for that reason."""
    raw = token_bytes(tokenizer, token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def of_chat(tokenizer: Tokenizer, piece: Piece) -> list[dict[str, Any]]:
    """Of each token of a piece: what it is, and the best ones in its place."""
    return [
        {
            **_told(tokenizer, token, said.pick),
            "top_logprobs": [_told(tokenizer, each, log) for each, log in said.best],
        }
        for token, said in zip(piece.tokens, piece.logprobs, strict=True)
    ]


def _told(tokenizer: Tokenizer, token: int, log: float) -> dict[str, Any]:
    return {
        "token": named(tokenizer, token),
        "logprob": max(log, LEAST),
        "bytes": list(token_bytes(tokenizer, token)),
    }


class TextOffsets:
    """Where in the text of an answer its tokens begin, counted in characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = 0

    def of(self, tokens: Sequence[int]) -> list[int]:
        """Of the next tokens. One that is part of a character begins where that begins."""
        found = []
        special = traits(self._tokenizer).special
        for token in tokens:
            found.append(self._at)
            if written(self._tokenizer, token) not in special:
                self._at += len(self._decoder.decode(token_bytes(self._tokenizer, token)))
        return found


def of_text(tokenizer: Tokenizer, piece: Piece, offsets: TextOffsets) -> dict[str, list[Any]]:
    """The lists of a completion's `logprobs` for the tokens of a piece."""
    return {
        "tokens": [named(tokenizer, token) for token in piece.tokens],
        "token_logprobs": [max(said.pick, LEAST) for said in piece.logprobs],
        "top_logprobs": [_best(tokenizer, piece, place) for place in range(len(piece.tokens))],
        "text_offset": offsets.of(piece.tokens),
    }


def _best(tokenizer: Tokenizer, piece: Piece, place: int) -> dict[str, float]:
    """The best tokens, and the one that was picked, which OpenAI adds to them."""
    said = piece.logprobs[place]
    best = {named(tokenizer, token): max(log, LEAST) for token, log in said.best}
    return best | {named(tokenizer, piece.tokens[place]): max(said.pick, LEAST)}
