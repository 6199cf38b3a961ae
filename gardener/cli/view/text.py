"""Text from models and peers: made safe for a terminal, and wrapped by rich."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from gardener.cli.view.lines import Line, styled
from gardener.runtime.wording import harmless
from gardener.watch.status import ColouredText

PARAGRAPH = 4000
"""Characters of a paragraph from which on its beginning is left out, in steps of a quarter."""

_console = Console(color_system="standard", force_terminal=True)


def clean(text: str, keep: str = "") -> str:
    """The text with a replacement for each character that could steer a terminal.

    Line breaks and tabs are replaced too, except those in `keep`.
    """
    return harmless(text, keep, "�")


def tail(pieces: Sequence[ColouredText], width: int, height: int) -> list[Line]:
    """The last `height` lines of a model's text, wrapped at `width` cells; guesses are green."""
    if width < 1 or height < 1:
        return []
    paragraphs = [Text()]
    for text, guessed in pieces:
        style = "green" if guessed else None
        safe = clean(text.replace("\r\n", "\n").expandtabs(4), keep="\n")
        first, *others = safe.split("\n")
        paragraphs[-1].append(first, style)
        paragraphs += [Text().append(each, style) for each in others]
    lines: list[Text] = []
    for paragraph in paragraphs[-height:]:
        over = len(paragraph) - PARAGRAPH
        if over > 0:  # cut in steps, so that the lines do not flow anew with every token
            step = PARAGRAPH // 4
            paragraph = paragraph[-(-over // step) * step :]
        lines += paragraph.wrap(_console, width) if paragraph else [paragraph]
    return [list(line.render(_console)) for line in lines[-height:]]


def messages(said: Sequence[str], width: int, height: int, newest: str = "") -> list[Line]:
    """The last `height` lines of what was said, wrapped; `newest` is the style of the last one."""
    if width < 1 or height < 1 or not said:
        return []
    *older, last = said[-height:]
    lines: list[Line] = []
    for text, style in (*((each, "dim") for each in older), (last, newest)):
        wrapped = Text(clean(text)).wrap(_console, width)
        lines += [[styled(line.plain, style)] for line in wrapped]
    return lines[-height:]
