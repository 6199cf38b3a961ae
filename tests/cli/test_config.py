"""Settings from TOML, and what a difference looks like."""

from pathlib import Path

import pytest

from gardener.cli.config import load
from gardener.errors import UserError
from gardener.evaluation.reference import compare

KNOWN = {"model", "max-new-tokens", "json"}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_table_for_each_command(tmp_path: Path) -> None:
    path = write(tmp_path / "g.toml", '[node]\nmodel = "m"\n[generate]\nmax-new-tokens = 5\n')
    assert load(path, "node", KNOWN) == {"model": "m"}
    assert load(path, "generate", KNOWN) == {"max-new-tokens": 5}
    assert load(path, "verify", KNOWN) == {}


def test_keys_are_the_long_options(tmp_path: Path) -> None:
    path = write(tmp_path / "g.toml", "[verify]\njson = true\nmax_new_tokens = 3\n")
    assert load(path, "verify", KNOWN) == {"json": True, "max-new-tokens": 3}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[node]\nmodle = 1", r"\[node\] knows no 'modle'; it knows json, max-new-tokens, model"),
        ("[nodes]\nmodel = 1", r"no table \[nodes\]; there are node, generate, chat, serve"),
        ("node = 3", r"write \[node\]"),
        ("[node", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        load(write(tmp_path / "g.toml", text), "node", KNOWN)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "none.toml", "node", KNOWN)


def test_equal_texts_are_the_same() -> None:
    assert compare(0, "plain", ([1, 2], [0.5, 0.5]), [1, 2]).outcome == "same"


def test_a_difference_has_its_position_and_gap() -> None:
    found = compare(0, "gardener", ([1, 2, 3], [0.5, 0.25, 0.5]), [1, 7, 3])
    assert (found.outcome, found.position, found.expected, found.got) == ("different", 1, 2, 7)
    assert str(found) == (
        "prompt 0, gardener: DIFFERENT at token 1: expected 2, got 7; "
        "gap of the two best scores 2.50e-01"
    )


def test_a_tie_is_called_a_tie() -> None:
    assert compare(0, "gardener", ([1, 2], [0.5, 5e-5]), [1, 7]).outcome == "tie"


@pytest.mark.parametrize("got", [[1], [1, 2, 3]])
def test_a_text_too_short_or_too_long_is_different(got: list[int]) -> None:
    assert compare(0, "serial", ([1, 2], [0.5, 0.5]), got).outcome == "different"
