"""The end of a growing text, wrapped by rich, in the colours of its tokens."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from gardener.cli.view.lines import Line, clean
from gardener.runtime.wording import harmless

PARAGRAPH = 4000
"""A paragraph longer than this, in characters, is cut in steps of a quarter of it."""

_console = Console(width=80, file=None, color_system="standard", force_terminal=True)


class Piece(NamedTuple):
    """Some text, and whether the tokens it came from had been guessed."""

    text: str
    guessed: bool


def printable(text: str) -> str:
    """Text of a model for a terminal: newlines stay, tabs become spaces, no other controls."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n").expandtabs(4)
    return harmless(text, keep="\n", instead="�")


def tail(pieces: Sequence[Piece], width: int, height: int) -> list[Line]:
    """The last `height` lines of the text, wrapped at `width` cells."""
    if width < 1 or height < 1:
        return []
    lines: list[Line] = []
    for paragraph in _last_paragraphs(pieces, height):
        wrapped = paragraph.wrap(_console, width) if paragraph else [Text()]
        lines += [_line(each) for each in wrapped]
    return lines[-height:]


def messages(said: Sequence[str], width: int, height: int) -> list[Line]:
    """What was said last, wrapped, in at most `height` lines; the newest is brightest."""
    if width < 1 or height < 1 or not said:
        return []
    *older, newest = said[-height:]
    lines: list[Line] = []
    for text, name in (*((each, "dim") for each in older), (newest, "")):
        lines += [[(line.plain.rstrip(), name)] for line in Text(clean(text)).wrap(_console, width)]
    return lines[-height:]


def _last_paragraphs(pieces: Sequence[Piece], count: int) -> list[Text]:
    """The last paragraphs, oldest first. Pieces of one colour are joined: wrapping is per span."""
    paragraphs = [Text()]
    for text, guessed in pieces:
        first, *others = printable(text).split("\n")
        paragraphs[-1].append(first, "green" if guessed else None)
        paragraphs += [Text(each, "green" if guessed else "") for each in others]
    return [_shortened(each) for each in paragraphs[-count:]]


def _shortened(paragraph: Text) -> Text:
    # In steps, so that the lines do not flow anew with every token.
    step = PARAGRAPH // 4
    over = len(paragraph) - PARAGRAPH
    return paragraph[-(-over // step) * step :] if over > 0 else paragraph


def _line(text: Text) -> Line:
    return [
        (segment.text, "green" if segment.style and segment.style.color else "")
        for segment in text.render(_console)
        if isinstance(segment, Segment) and segment.text
    ]
