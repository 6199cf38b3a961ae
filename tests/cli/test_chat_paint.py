"""What an answer looks like: read as a terminal would, character by character."""

import re

import pytest

from gardener.cli.chat.paint import Painter, Style
from gardener.cli.chat.source import Part


def painted(text: str, *, pieces: int = 1, columns: int = 20, style: Style | None = None) -> str:
    """What is written of the text, in pieces of so many characters."""
    out: list[str] = []
    painter = Painter(out.append, lambda: columns, style or Style())
    for at in range(0, len(text), pieces):
        painter.push(Part(text[at : at + pieces]))
    painter.end()
    return "".join(out)


def screen(written: str) -> list[str]:
    """Lines as they stand: backspaces and erasing done, looks left out."""
    lines, at = [""], 0
    for part in re.findall(r"\x1b\[[0-9;]*[mK]|.|\n", written):
        if part.endswith("K") and part.startswith("\x1b"):
            lines[-1] = lines[-1][:at]
        elif part == "\n":
            lines.append("")
            at = 0
        elif part == "\b":
            at -= 1
        elif not part.startswith("\x1b"):
            lines[-1] = lines[-1][:at] + part + lines[-1][at + 1 :]
            at += 1
    return lines


TEXT = "The quick brown fox jumps over the lazy dog, and then averyveryverylongwordindeed ends."
WRAPPED = [
    "The quick brown fox",
    "jumps over the lazy",
    "dog, and then ",
    "averyveryverylongwordindeed ends.",  # the terminal breaks it
    "",
]


@pytest.mark.parametrize("pieces", [1, 3, 7, 1000])
def test_lines_are_broken_between_words_however_the_text_comes(pieces: int) -> None:
    assert screen(painted(TEXT, pieces=pieces)) == WRAPPED


def test_plain_text_is_written_as_it_is() -> None:
    bare = Style(colour=False, tint=False, marks=False)
    assert painted("# A **b**\n" + TEXT, pieces=4, style=bare) == "# A **b**\n" + TEXT + "\n"


def test_guesses_are_tinted_and_a_line_never_ends_in_colour() -> None:
    out: list[str] = []
    painter = Painter(out.append, lambda: 80, Style())
    for part in (Part("one"), Part(" two\n", guessed=True), Part("three")):
        painter.push(part)
    painter.end()
    assert "".join(out) == "one\x1b[32m two\x1b[0m\nthree\n"
    out.clear()
    painter = Painter(out.append, lambda: 80, Style(tint=False))
    painter.push(Part("two", guessed=True))
    painter.end()
    assert "".join(out) == "two\n"


@pytest.mark.parametrize("pieces", [1, 2, 100])
@pytest.mark.parametrize(
    ("text", "bold"),
    [
        ("# Head\ntext", "# Head"),
        ("#hash is none", ""),
        ("a **strong** word", "**strong**"),
        ("2**3 and 4 ** 5", ""),
        ("**open\nline", "**open"),
        ("`a **b**` c", ""),
        ("```py\n**x** # y\n```\n**z**", "**z**"),
    ],
)
def test_marks_stay_and_what_they_mean_is_bold(text: str, bold: str, pieces: int) -> None:
    written = painted(text, pieces=pieces, columns=80)
    assert screen(written) == [*text.split("\n"), ""]
    found = re.findall(r"\x1b\[1m(.*?)\x1b\[0m", written)
    assert "".join(found) == bold


def test_code_is_not_broken() -> None:
    line = "x = f(aaaaaa, bbbbbb, cccccc, dddddd)"
    assert screen(painted(f"```\n{line}\n```", pieces=5))[1] == line


def test_nothing_steers_the_terminal() -> None:
    written = painted("a\x1b[2Jb\x07\x9bc\r\nd\te", style=Style(colour=False))
    assert written == "a�[2Jb��c\nd    e\n"


@pytest.mark.parametrize("pieces", [1, 5, 100])
def test_wide_characters_are_words_and_nothing_is_taken_back(pieces: int) -> None:
    text = "日本語の文章には空白がない。ab cd"
    written = painted(text, pieces=pieces, columns=11)
    assert screen(written) == ["日本語の文", "章には空白", "がない。ab", "cd", ""]
    assert "\b" not in written


def test_a_line_does_not_begin_with_a_full_stop() -> None:
    assert screen(painted("日本語の文。", pieces=9, columns=11))[0] == "日本語の"


def test_after_a_line_that_the_terminal_broke_it_is_known_where_it_ends() -> None:
    url = "https://example.org/" + "a" * 15
    assert screen(painted(f"{url} and more text", columns=20)) == [f"{url} and", "more text", ""]


@pytest.mark.parametrize("word", ["👩\u200d🌾", "❤\ufe0fx", "🇩🇪x", "co\u00adop"])
def test_what_is_of_uncertain_width_is_not_taken_back(word: str) -> None:
    written = painted(f"0123456 {word}yyyyyyyyyyyyyyyyy", pieces=1, columns=12)
    assert "\b" not in written
    assert word in written.replace("\n", "")


def test_letters_that_need_invisible_ones_keep_them() -> None:
    text = "می\u200cخواهم l’eau\u202f! 1\u00a0kg 漢\u3000字 👩\u200d🌾"
    assert painted(text, columns=80) == text + "\n"
    assert painted("a\u202eb\u200fc", columns=80) == "a�b�c\n"
