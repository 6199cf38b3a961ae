"""The table of waits says what the code does."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "docs" / "waits.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| wait |")
]

SOURCE = re.sub(
    r'"\s*\n\s*[rf]*"', "", "".join(p.read_text() for p in sorted(ROOT.glob("gardener/**/*.py")))
)
"""All of it, with strings that go over several lines in one piece."""


def value(path: str) -> Any:
    """What a dotted name stands for: a constant of a module, or something of one."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise AssertionError(f"there is no {path}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1][:30]}")
def test_a_wait_has_the_bound_and_the_words_of_the_code(row: list[str]) -> None:
    _, who, bound, where, words = row
    assert who
    named = re.search(r"`(gardener\.[\w.]+)`", where)
    if re.fullmatch(r"[\d.]+", bound):
        assert named is not None, "a bound is set somewhere"
        assert float(bound) == value(named[1])
    else:
        assert named is None
    for sentence in re.findall(r"`([^`]+)`", words):
        for part in sentence.split("…"):
            assert part.strip() in SOURCE


def test_there_are_waits() -> None:
    assert len(ROWS) > 25
