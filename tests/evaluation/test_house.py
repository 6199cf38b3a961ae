"""The script that counts the house (`benchmarks/house.py`), on a small checkout made by hand."""

from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest

from benchmarks.house import doors, sizes
from benchmarks.verdict import LOOP, Tracer

FILES = {
    "gardener/__init__.py": "",
    "gardener/loose.py": "import os\nfrom gardener.room.one import f\n",
    "gardener/room/__init__.py": "",
    "gardener/room/one.py": "def f() -> None:\n    def g() -> None:\n        pass\n    g()\n",
    "tests/test_architecture.py": "MAY_IMPORT = {'room': set()}\n",
    "benchmarks/one.py": "\n",
    "docs/a.md": "a\n",
    "README.md": "b\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_entries_and_who_may_import_everything(checkout: Path) -> None:
    assert doors(checkout) == {
        "entries": 2,
        "loose_modules": 1,
        "may_import_everything": ["loose"],
        "import_more_than_8_parts": [],
    }


def test_the_longest_and_lines_in_all(checkout: Path) -> None:
    assert sizes(checkout) == {
        "longest_file": (4, "gardener/room/one.py"),
        "longest_function": (4, "gardener/room/one.py: f"),
        "lines": {"gardener": 6, "tests": 1, "benchmarks": 1, "docs": 2},
    }


class Verdict:
    """Known by its name, so that an older checkout can be traced."""


def frame(file: str, caller: Any = None, **arguments: Any) -> Any:
    """A frame of a function in this file."""
    code = type("Code", (), {})()
    code.co_filename, code.co_varnames, code.co_argcount = file, tuple(arguments), len(arguments)
    made = type("Frame", (), {})()
    made.f_code, made.f_back, made.f_locals = code, caller, arguments
    return made


def test_only_callbacks_with_a_verdict_are_counted() -> None:
    tracer, loop = Tracer(Path("/x/gardener")), frame(f"{LOOP}/events.py")
    for argument in (Verdict(), "a ping"):
        first = frame("/x/gardener/link.py", loop)
        inner = frame("/x/gardener/holder.py", first, message=argument)
        other = frame("/elsewhere/msgpack.py", first)
        for each in (first, other, inner):
            tracer(cast(FrameType, each), "call", None)
        for each in (inner, first):
            tracer(cast(FrameType, each), "return", None)
    assert tracer.found == [(2, 2, 1)]
