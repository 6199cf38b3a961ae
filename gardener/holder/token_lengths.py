"""How few tokens a text can be, at the least: told from its length, before it is tokenised.

That takes a second and a hundred megabytes for each megabyte of text, and most of what is far too
long for a context can be refused without.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer, models

from gardener.holder.detokenizer import LETTER_OF

COMPOSED = 4
"""Characters of a text that become one where it is composed, at most: what the longest canonical
decomposition has (Unicode, annex 15)."""

_COMPOSING = frozenset(("NFC", "NFKC"))
_KEEPING = frozenset(
    (
        *("NFC", "NFKC", "NFD", "NFKD", "Prepend"),  # normalizers; the others may shorten a text
        *("ByteLevel", "Digits", "Metaspace", "Split", "Punctuation"),  # pre-tokenizers
    )
)
_BLANKS = re.compile(r"\s+")


class TokenLengths:
    """Of a tokenizer that nobody changes any more."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._longest = _longest(tokenizer)
        added = tokenizer.get_added_tokens_decoder().values()
        self._takes_blanks = any(each.lstrip or each.rstrip for each in added)

    def least(self, text: str) -> int:
        """As many tokens at least make up this text; 0 where there is no telling."""
        if self._longest is None:
            return 0
        length = len(_BLANKS.sub("", text) if self._takes_blanks else text)
        return -(-length // self._longest)


def _longest(tokenizer: Tokenizer) -> int | None:
    """Characters of a text that one token stands for, at most; None where no character is sure to
    be in a token."""
    steps = [*_steps(tokenizer.normalizer), *_steps(tokenizer.pre_tokenizer)]
    if not all(map(_keeps_all, steps)):
        return None
    vocabulary, kinds = tokenizer.get_vocab(with_added_tokens=True), {s["type"] for s in steps}
    if not isinstance(tokenizer.model, models.BPE):
        return None
    if "ByteLevel" in kinds:
        bytes_ = list(LETTER_OF.values())
    elif tokenizer.model.byte_fallback:
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        return None
    if not all(byte in vocabulary for byte in bytes_):
        return None
    return max(map(len, vocabulary)) * (COMPOSED if kinds & _COMPOSING else 1)


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, as its file would say them."""
    if part is None:
        return
    waiting = [json.loads(part.__getstate__())]
    while waiting:
        step = waiting.pop()
        inner = step.get("normalizers") or step.get("pretokenizers") or ()
        waiting += inner
        if step["type"] != "Sequence":
            yield step


def _keeps_all(step: dict[str, Any]) -> bool:
    """Whether no character is lost in a step."""
    if step["type"] == "Replace":
        pattern = step["pattern"].get("String")
        return pattern is not None and len(pattern) <= len(step["content"])
    return step["type"] in _KEEPING and step.get("behavior") != "Removed"
