"""Doors go one way: read from the imports, not from good intentions ."""

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import gardener

ROOT = Path(gardener.__file__).parent
SHARED = {"errors", "runtime"}
CORE = SHARED | {"protocol"}
WORKERS = CORE | {"net", "decoding", "model"}
MAY_IMPORT = {
    "errors": set[str](),
    "runtime": {"errors"},
    "protocol": SHARED,
    "net": CORE,
    "decoding": CORE,
    "model": CORE,
    "keys": CORE,
    "stages": WORKERS,
    "draft": WORKERS,
    "holder": WORKERS | {"stages", "draft"},
    "rings": WORKERS | {"stages", "draft", "holder"},
    "cluster": WORKERS | {"stages", "draft", "holder"},
    "evaluation": WORKERS | {"stages", "draft", "holder"},
    "watch": WORKERS | {"stages", "draft", "holder"},
    "metrics": WORKERS | {"stages", "draft", "holder"},
    "serve": WORKERS | {"stages", "draft", "holder", "rings", "cluster", "watch", "metrics"},
}
"""Room -> the rooms that it may import, besides itself. `cli` alone may import everything."""

TORCH = {"torch", "transformers", "safetensors"}
TERMINAL = {"rich", "cyclopts"}
SOCKETS = {"asyncio", "uvloop", "socket"}
KNOWS_NOTHING_OF = {
    "runtime": TORCH | TERMINAL,
    "protocol": TORCH | TERMINAL | SOCKETS,
    "decoding": TORCH | TERMINAL | SOCKETS,
    "net": TORCH | TERMINAL,
    "model": TERMINAL | SOCKETS,
    "keys": TORCH | TERMINAL | SOCKETS,
    "stages": TERMINAL,
    "draft": TERMINAL | SOCKETS,
    "holder": TERMINAL,
    "rings": TERMINAL,
    "cluster": TERMINAL,
    "watch": TERMINAL,
    "metrics": TERMINAL,
    "serve": TERMINAL,
}
"""Room -> packages that nothing in it imports, not even late."""

TESTS = Path(__file__).parent
PURE_ROOMS = ("protocol", "decoding")
"""Their tests need no tensor, no socket, no process and no clock, so that they take seconds."""
IMPURE = TORCH | TERMINAL | SOCKETS | {"numpy", "subprocess", "threading", "time"}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it but under TYPE_CHECKING is no exception."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def parts_of(path: Path) -> set[str]:
    """First-level parts of the house that a file imports."""
    return {
        name.split(".")[1]
        for name in imports(path)
        if name.startswith("gardener.") and name != "gardener.__version__"
    }


ROOMS = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__")


def test_a_room_is_a_folder_and_loose_modules_are_the_exception() -> None:
    assert {name for name in modules() if "." not in name} <= {"", "errors", *ROOMS}
    assert {*ROOMS, "errors"} - MAY_IMPORT.keys() == {"cli"}, "cli alone may import everything"


@pytest.mark.parametrize("name", [n for n in modules() if n.split(".")[0] in MAY_IMPORT])
def test_doors_go_one_way(name: str) -> None:
    room = name.split(".")[0]
    assert parts_of(modules()[name]) <= MAY_IMPORT[room] | {room}


@pytest.mark.parametrize("name", [n for n in modules() if n.split(".")[0] in KNOWS_NOTHING_OF])
def test_what_a_room_knows_nothing_of(name: str) -> None:
    packages = {each.split(".")[0] for each in imports(modules()[name])}
    assert not packages & KNOWS_NOTHING_OF[name.split(".")[0]]


def reached(start: Path, known: Mapping[str, Path]) -> set[str]:
    """What a file imports, directly or through the modules in `known`."""
    found, left = set[str](), [start]
    while left:
        new = imports(left.pop()) - found
        found |= new
        left += [known[name] for name in new & known.keys()]
    return found


@pytest.mark.parametrize(
    "path",
    [path for room in PURE_ROOMS for path in sorted((TESTS / room).glob("*.py"))],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_tests_of_pure_rooms_are_pure(path: Path) -> None:
    room = path.parent.name
    helpers = {each.stem: each for each in [*TESTS.glob("*.py"), *path.parent.glob("*.py")]}
    house = {f"gardener.{name}": each for name, each in modules().items() if name}
    names = reached(path, helpers | house)
    assert not {name.split(".")[0] for name in names} & IMPURE
    rooms = {name.split(".")[1] for name in names if name.startswith("gardener.")}
    assert rooms <= MAY_IMPORT[room] | {room}


def test_messages_need_neither_torch_nor_asyncio() -> None:
    code = (
        "import sys, gardener.protocol.messages;"
        "sys.exit(', '.join({'torch', 'asyncio', 'msgpack'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_cycles_between_modules() -> None:
    known = modules()
    graph = {
        name: {each.removeprefix("gardener.") for each in imports(path)} & known.keys() - {name}
        for name, path in known.items()
    }
    left = dict(graph)
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


def test_nothing_is_called_utils() -> None:
    assert not [name for name in modules() if name.split(".")[-1] in {"utils", "helpers", "misc"}]


@pytest.mark.parametrize("path", modules().values(), ids=modules().keys())
def test_files_stay_small_and_say_what_they_do(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path} does not say what it does"
    assert text.count("\n") <= 400, f"{path} is too long: is there a second noun in it?"
