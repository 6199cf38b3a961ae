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
        steps = [*_steps(tokenizer.normalizer), *_steps(tokenizer.pre_tokenizer)]
        kinds = {step["type"] for step in steps}
        lost = _lost(tokenizer, "ByteLevel" in kinds) if all(map(_keeps_all, steps)) else None
        longest = max(map(len, tokenizer.get_vocab(with_added_tokens=True)), default=1)
        self._longest = longest * (COMPOSED if kinds & _COMPOSING else 1)
        self._lost = lost
        added = tokenizer.get_added_tokens_decoder().values()
        self._takes_blanks = any(each.lstrip or each.rstrip for each in added)

    def least(self, text: str) -> int:
        """As many tokens at least make up this text; 0 where there is no telling."""
        if self._lost is None:
            return 0
        text = _BLANKS.sub("", text) if self._takes_blanks else text
        length = len(text) - sum(map(text.count, self._lost))
        return -(-length // self._longest)


def _lost(tokenizer: Tokenizer, byte_level: bool) -> str | None:
    """The characters that may become no token; None where there is no telling which these are.

    Byte by byte, every other character than these has a byte that is a token: those of several
    bytes have one from 0x80 to 0xbf.
    """
    model = tokenizer.model
    if not isinstance(model, models.BPE) or not (byte_level or model.byte_fallback):
        return None
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    names = LETTER_OF if byte_level else {byte: f"<0x{byte:02X}>" for byte in range(256)}
    missing = [byte for byte, name in names.items() if name not in vocabulary]
    # Where a character falls back to bytes, all of these have to be there.
    if any(0x80 <= byte < (0xC0 if byte_level else 0xF5) for byte in missing):
        return None
    return "".join(chr(byte) for byte in missing if byte < 0x80)


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
