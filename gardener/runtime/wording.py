"""How things are written for people: text that may come from anybody, and ranges of layers."""

from collections.abc import Callable
from typing import TypeAlias

Say: TypeAlias = Callable[[str], None]
"""Where a line for the user goes."""


def printable(text: str) -> str:
    """`text` on one line, without what could steer a terminal: it may come from a peer."""
    return harmless(" ".join(text.split()))


def harmless(text: str, keep: str = "", instead: str = "?") -> str:
    """`text` with `instead` for every character that could steer a terminal, newlines too. Those
    in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else instead for each in text)


def span(first: int, end: int) -> str:
    """The layers of [first, end) the way people count them, both ends included: `layers 20-29`,
    `layer 20` or `no layers`."""
    if first == end:
        return "no layers"
    return f"{'layer' if end - first == 1 else 'layers'} {bare_span(first, end)}"


def bare_span(first: int, end: int) -> str:
    """The same in a table of layers: `20-29` or `20`."""
    return str(first) if end - first == 1 else f"{first}-{end - 1}"
