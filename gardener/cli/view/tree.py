"""The token tree as a drawing: the likeliest branches, from the root to the right.

● range ─┬─ is ── a ── mountain  41%
         ├─ in ── the  9%
         └─ of  4%
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from rich.cells import cell_len

from gardener.cli.view.lines import Line, clean, cut

State: TypeAlias = Literal["judged", "ring", "waiting"]
"""Judged by the target already; in the ring; not sent (yet)."""

STYLES: dict[State, str] = {"judged": "green", "ring": "cyan", "waiting": ""}

JOINT = 5
"""Cells of the connection between a token and the next one."""

ENDING = 6
"""Cells of a probability at the end of a branch."""


class Twig(NamedTuple):
    """A node of the tree as it is shown. `probability`: of the path from the root down to here."""

    id: int
    parent: int
    text: str
    probability: float
    state: State


@dataclass(frozen=True, slots=True)
class _Bush:
    twig: Twig
    children: "list[_Bush]"


def token_text(text: str) -> str:
    """A token in a drawing: without the space before it, and visible where it is nothing else."""
    shown = text.replace("\r", "").replace("\n", "↵").replace("\t", "⇥")
    return clean(shown.strip(" ") or "␣")


def draw(twigs: Sequence[Twig], width: int, height: int) -> list[Line]:
    """The root and the likeliest of the others, in at most `height` lines of `width` cells.

    The root comes first in `twigs`, and parents before their children.
    """
    if not twigs or height < 1 or width < 1:
        return []
    bush = _select(twigs, width, height)
    return [cut(line, width) for line in _block(bush, [("● ", "bold yellow")], "bold yellow")]


def _select(twigs: Sequence[Twig], width: int, leaves: int) -> _Bush:
    """The likeliest twigs that fit, with as many branches as there are lines."""
    root = _Bush(twigs[0], [])
    placed = {root.twig.id: (root, 2 + cell_len(token_text(root.twig.text)))}
    left = leaves - 1
    for twig in sorted(twigs[1:], key=lambda each: (-each.probability, each.id)):
        if twig.parent not in placed:
            continue  # its parent did not fit
        parent, column = placed[twig.parent]
        column += JOINT + cell_len(token_text(twig.text))
        branches = bool(parent.children)  # a first child goes on in the line of its parent
        if column + ENDING > width or (branches and not left):
            continue
        left -= branches
        bush = _Bush(twig, [])
        parent.children.append(bush)
        placed[twig.id] = (bush, column)
    return root


def _block(bush: _Bush, mark: Line, name: str) -> list[Line]:
    """The lines of a twig and all below it; `mark` stands before its token."""
    text = token_text(bush.twig.text)
    head: Line = [*mark, (text, name)]
    if not bush.children:
        return [[*head, (f"  {percent(bush.twig.probability)}", "dim")] if not mark else head]
    indent = " " * (sum(cell_len(part) for part, _ in mark) + cell_len(text) + 1)
    lines: list[Line] = []
    last = len(bush.children) - 1
    for number, child in enumerate(bush.children):
        join = ("─┬─ " if last else "─── ") if not number else "├─ " if number < last else "└─ "
        for row, line in enumerate(_block(child, [], STYLES[child.twig.state])):
            if row:  # below the first line of this child: a bar if siblings follow
                bar = "│" if number < last else " "
                start: Line = [(f"{indent} {bar}  ", "dim")]
            elif number:
                start = [(f"{indent} {join}", "dim")]
            else:
                start = [*head, (f" {join}", "dim")]
            lines.append([*start, *line])
    return lines


def percent(probability: float) -> str:
    """`41%`, and `<1%` for what is not quite nothing."""
    return f"{100 * probability:.0f}%" if probability >= 0.005 else "<1%"
