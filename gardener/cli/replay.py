"""`gardener replay`: a recorded run on the screen again, or a picture of it."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from gardener.cli import terminal
from gardener.cli.program import Misuse, flag, note, result, run
from gardener.cli.view import live
from gardener.cli.view.holder_frame import draw
from gardener.cli.view.picture import as_svg, as_text
from gardener.cli.view.player import Player
from gardener.runtime.files import write_text
from gardener.runtime.wording import printable
from gardener.watch.recording import MOST_SIZE, Recording, read

USUAL = (80, 24)
"""Columns and lines where neither we nor the recording had a terminal."""

FileArgument = Annotated[
    Path,
    Parameter(metavar="FILE", allow_leading_hyphen=False, help="What --record has written."),
]
SpeedOption = Annotated[
    float, Parameter(validator=Number(gte=0.1, lte=100), metavar="0.1..100", help="How fast.")
]
LastOption = Annotated[bool, flag(help="Print the last picture as text, and play nothing.")]
AtOption = Annotated[
    float | None,
    Parameter(
        validator=Number(gte=0),
        metavar="SECONDS",
        help="Print the picture of this moment, or --svg it, in place of the last one.",
    ),
]
SizeOption = Annotated[
    str | None,
    Parameter(
        metavar="COLUMNSxLINES",
        help="Of a picture. Default: this terminal's, or that of the recording, or 80x24.",
    ),
]
SvgOption = Annotated[
    Path | None, Parameter(metavar="FILE", help="Write the picture to a file, as SVG.")
]


def replay(
    file: FileArgument,
    /,
    *,
    speed: SpeedOption = 1.0,
    last: LastOption = False,
    at: AtOption = None,
    size: SizeOption = None,
    svg: SvgOption = None,
) -> None:
    """Play what --record has written; on no terminal, print its last picture.

    gardener replay run.jsonl.gz --speed 2
    """
    if last and at is not None:
        raise Misuse("--last and --at name two pictures: give one")
    wanted = None if size is None else _size(size)
    recording = read(file)
    if recording.note:
        note(printable(recording.note))
    if svg is None and not last and at is None and sys.stdout.isatty() and live.possible():
        run(_play(recording, speed))
        return
    columns, lines = wanted or _terminal() or recording.header.size or USUAL
    index = recording.index(recording.seconds if at is None else at)
    picture = draw(recording.status(index), columns, lines)
    if svg is None:
        result(as_text(picture, columns, lines))
        return
    write_text(svg, as_svg(picture, columns, lines, f"gardener, {recording.header.model}"))
    note(f"written to {svg}")


async def _play(recording: Recording, speed: float) -> None:
    """Until `q`, or to its end where no key can be hit."""
    player = Player(recording, speed)
    async with player.live:
        if terminal.reads_keys() is None:
            await asyncio.sleep((recording.seconds - recording.times[0]) / speed)
        else:
            await player.live.closed.wait()


def _terminal() -> tuple[int, int] | None:
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return None
    return (size.columns, size.lines) if all(size) else None


def _size(given: str) -> tuple[int, int]:
    """Raises Misuse."""
    found = re.fullmatch("([0-9]{1,4})x([0-9]{1,4})", given)
    columns, lines = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (1 <= columns <= MOST_SIZE and 1 <= lines <= MOST_SIZE):
        raise Misuse(f"--size {given!r} is no size: say 80x24, at most {MOST_SIZE} either way")
    return columns, lines
