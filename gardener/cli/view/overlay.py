"""What lies over a picture: a tag in an empty line, or a box in the middle."""

from collections.abc import Sequence

from rich.segment import Segment, Segments

from gardener.cli.view.lines import Line, cut, length, styled


def tag(picture: Segments, text: Line, width: int) -> Segments:
    """The picture with `text` at the right end of its first empty line, if there is one."""
    lines = _lines(picture)
    size = length(text)
    for number, line in enumerate(lines):
        if size + 2 <= width and not "".join(each.text for each in line).strip():
            before = Segment.adjust_line_length(line, width - 2 - size)
            lines[number] = [*before, *text, styled(" ")]
            break
    return _joined(lines)


def box(picture: Segments, content: Sequence[Line], width: int, height: int) -> Segments:
    """The picture with a framed box over its middle; what does not fit into it is cut off."""
    lines = _lines(picture)
    inner = min(max(map(length, content), default=0), width - 7)
    if inner < 1 or height < 3:
        return picture
    content = content[: height - 2]
    left, top = (width - inner - 4) // 2, (height - len(content) - 2) // 2
    framed = [
        [styled(f"╭{'─' * (inner + 2)}╮", "dim")],
        *(
            [
                styled("│ ", "dim"),
                *Segment.adjust_line_length(cut(line, inner), inner),
                styled(" │", "dim"),
            ]
            for line in content
        ),
        [styled(f"╰{'─' * (inner + 2)}╯", "dim")],
    ]
    for number, line in enumerate(framed, top):
        before, _, after = Segment.divide(lines[number], [left, left + inner + 4, width - 1])
        lines[number] = [*before, *line, *after]
    return _joined(lines)


def _lines(picture: Segments) -> list[Line]:
    return list(Segment.split_lines(picture.segments))


def _joined(lines: Sequence[Line]) -> Segments:
    end = Segment.line()
    return Segments([segment for line in lines for segment in (*line, end)][:-1])
