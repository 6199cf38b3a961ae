"""A picture of a status outside a terminal: as plain text, or as SVG."""

import io

from rich.console import Console
from rich.segment import Segments
from rich.terminal_theme import SVG_EXPORT_THEME

FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

SVG = f"""\
<svg viewBox="0 0 {{width}} {{height}}" xmlns="http://www.w3.org/2000/svg">
<style>
.{{unique_id}}-matrix {{{{
font-family: {FONTS};
font-size: {{char_height}}px;
line-height: {{line_height}}px;
}}}}
.{{unique_id}}-title {{{{
font-size: 18px;
font-weight: bold;
font-family: system-ui, sans-serif;
}}}}
{{styles}}
</style>
<defs>
<clipPath id="{{unique_id}}-clip-terminal">
<rect x="0" y="0" width="{{terminal_width}}" height="{{terminal_height}}" />
</clipPath>
{{lines}}
</defs>
{{chrome}}
<g transform="translate({{terminal_x}}, {{terminal_y}})"
clip-path="url(#{{unique_id}}-clip-terminal)">
{{backgrounds}}
<g class="{{unique_id}}-matrix">
{{matrix}}
</g>
</g>
</svg>
"""
"""rich's own form of it without fonts from elsewhere: nothing is fetched to show it."""


def as_text(picture: Segments, width: int, height: int) -> str:
    """The lines without colours, and without the spaces at their ends."""
    console = _console(width, height, colours=False)
    console.print(picture, end="")
    lines = console.export_text().split("\n")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def as_svg(picture: Segments, width: int, height: int, title: str) -> str:
    """A window with the picture in it."""
    console = _console(width, height, colours=True)
    console.print(picture, end="")
    return console.export_svg(
        title=title, theme=SVG_EXPORT_THEME, code_format=SVG, unique_id="view"
    )


def _console(width: int, height: int, colours: bool) -> Console:
    return Console(
        record=True,
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=True,
        color_system="truecolor" if colours else None,
        legacy_windows=False,
        _environ={},
    )
