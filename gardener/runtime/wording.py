"""How things are written for people: text that may come from anybody, and ranges of layers."""

import unicodedata
from collections.abc import Callable
from typing import TypeAlias

from gardener.errors import UserError

Say: TypeAlias = Callable[[str], None]
"""Where a line for the user goes."""


INVISIBLE = frozenset("\u00ad\u200b\u200c\u200d\u2060")
"""Soft hyphen, zero width space, both joiners of letters, and what joins words: text needs them,
and they steer nothing. What turns the direction of writing does, so that is not among them."""


def check_text(text: str, what: str) -> None:
    """Raise UserError, which begins with `what`, for what no text in UTF-8 can hold: bytes of a
    command line or a file that were none, or half of a character that JSON writes as two."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        from_bytes = 0xDC80 <= code <= 0xDCFF  # how Python keeps bytes that are no text
        byte = f"byte {code - 0xDC00:#04x}" if from_bytes else f"half of one, U+{code:X},"
        raise UserError(
            f"{what} is not UTF-8 text ({byte} in the place of character {error.start + 1}): "
            "convert it"
        ) from None


def printable(text: str) -> str:
    """`text` on one line, without what could steer a terminal: it may come from a peer."""
    return harmless(" ".join(text.split()))


def harmless(text: str, keep: str = "", instead: str = "?") -> str:
    """`text` with `instead` for every character that could steer a terminal, newlines too. Those
    in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(each if each in keep or _is_harmless(each) else instead for each in text)


def _is_harmless(each: str) -> bool:
    return each.isprintable() or each in INVISIBLE or unicodedata.category(each) == "Zs"


def span(first: int, end: int) -> str:
    """The layers of [first, end) the way people count them, both ends included: `layers 20-29`,
    `layer 20` or `no layers`."""
    if first == end:
        return "no layers"
    return f"{'layer' if end - first == 1 else 'layers'} {bare_span(first, end)}"


def bare_span(first: int, end: int) -> str:
    """The same in a table of layers: `20-29` or `20`."""
    return str(first) if end - first == 1 else f"{first}-{end - 1}"
