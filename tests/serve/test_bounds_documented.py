"""`docs/bounds.md` names constants that are there."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "bounds.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`((?:[a-z_]+\.)+(?:[A-Z]\w*)(?:\.\w+)?)`", PAGE)))


@pytest.mark.parametrize("name", NAMES)
def test_every_bound_that_is_documented_exists(name: str) -> None:
    module, _, rest = re.split(r"(\.)(?=[A-Z])", name, maxsplit=1)
    found: object = importlib.import_module(f"gardener.{module}")
    for part in rest.split("."):
        found = getattr(found, part)
    assert found is not None


def test_the_page_names_many() -> None:
    assert len(NAMES) > 25
