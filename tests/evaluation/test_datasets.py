"""Files of prompts."""

import re
from pathlib import Path

import pytest

from gardener.errors import UserError
from gardener.evaluation.datasets import Conversation, read_conversations


def test_rows_with_turns_and_lines_of_text(tmp_path: Path) -> None:
    rows = tmp_path / "chat.jsonl"
    rows.write_text('{"turns": ["a", "b\u2028c"], "category": "x"}\n\n{"turns": ["d"]}\n')
    text = tmp_path / "lines.txt"
    text.write_text("\n  one \r\ntwo\n")
    assert read_conversations([rows, text], None) == (
        Conversation("chat", 1, ("a", "b\u2028c")),
        Conversation("chat", 3, ("d",)),
        Conversation("lines", 2, ("one",)),
        Conversation("lines", 3, ("two",)),
    )
    assert [row.line for row in read_conversations([rows, text], 1)] == [1, 2]


def test_two_files_of_one_name_are_two_data_sets(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    paths = [tmp_path / "a.txt", tmp_path / "more" / "a.txt"]
    for path in paths:
        path.write_text("x\n")
    assert [row.data for row in read_conversations([*paths, paths[0]], None)] == [
        "a",
        str(paths[1]),
    ]


def test_our_own_prompts_are_there_by_category() -> None:
    rows = read_conversations([], 2)
    sets = list(dict.fromkeys(row.data for row in rows))
    assert len(sets) > 3
    assert [row.data for row in rows] == [name for name in sets for _ in range(2)]
    assert len(read_conversations([], None)) > len(rows)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"turns": ["a"]}\n{"turns"', "line 2: this is no JSON"),
        ('\n["a"]', "line 2: the field turns is missing"),
        ('{"prompt": "a"}', "line 1: the field turns is missing"),
        ('{"turns": []}', "line 1: turns must be a list of at least one text"),
        ('{"turns": "a"}', "line 1: turns must be a list of at least one text"),
        ('{"turns": ["a", 5]}', r"line 1: turns\[1\] must be a text that is not empty"),
        ('{"turns": [" "]}', r"line 1: turns\[0\] must be a text that is not empty"),
        (r'{"turns": ["a", "\ud83d"]}', r"line 1: turns\[1\] is not UTF-8 text .half of one"),
        ("\n \n", "holds no prompt"),
    ],
)
def test_bad_rows_are_named(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))},? {why}"):
        read_conversations([path], None)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.txt cannot be read: no such file or directory$"):
        read_conversations([tmp_path / "none.txt"], None)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="cannot be read"):
        read_conversations([tmp_path / "bytes.txt"], None)
