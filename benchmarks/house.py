"""Count how large and how tangled the house is: files, doors, functions, calls, seconds.

Works on any checkout of this project, older ones with another layout too. The first figures are
read from the source, the others are measured: the calls that a verdict takes at the holder of a
real ring of three stages (`verdict.py`), the holder's processor time for a segment (`holder.py`),
and the seconds of the tests of the core.

Run from the checkout: `python -m benchmarks.house [FOLDER] [--static] [--json]`.
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

HERE = Path(__file__).parent
CORE_TESTS = ("protocol", "decoding")
MANY = 8
"""A part that imports more than this number of others knows half of the house."""

TRACED = (
    *("generate", "Why is the sky blue?", "--local", "3", "--threads", "1", "--json"),
    *("--policy", "gardener", "--draft", "ngram", "--max-new-tokens", "64"),
)
TIMED = ("--policies", "gardener,pipedec")

Figures: TypeAlias = dict[str, Any]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


# --- read from the source ------------------------------------------------------------------------


def sources(folder: Path) -> Iterator[tuple[Path, str]]:
    """The Python files of a folder with their text."""
    for path in sorted(folder.rglob("*.py")):
        yield path, path.read_text()


def parts(package: Path) -> dict[str, Path]:
    """The first level of the package: its folders and the modules that lie beside them."""
    return {
        path.stem: path
        for path in sorted(package.iterdir())
        if (path.suffix == ".py" and path.stem != "__init__") or any(path.rglob("*.py"))
    }


def imported_parts(path: Path) -> set[str]:
    """The parts that a file, or any file of a folder, imports."""
    names: set[str] = set()
    for _, text in sources(path) if path.is_dir() else [(path, path.read_text())]:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("gardener.")}


def doors(folder: Path) -> Figures:
    """Entries of the package, and which of them know too much."""
    found = parts(folder / "gardener")
    ruled = _ruled(folder / "tests" / "test_architecture.py")
    reach = {
        name: len(imported_parts(path) & found.keys() - {name}) for name, path in found.items()
    }
    loose = [name for name, path in found.items() if path.is_file()]
    free = [name for name in found if name not in ruled]
    return {
        "entries": len(found),
        "loose_modules": len(loose),
        "may_import_everything": free,
        f"import_more_than_{MANY}_parts": [name for name in found if reach[name] > MANY],
    }


def _ruled(test: Path) -> set[str]:
    """The parts that the table MAY_IMPORT of the architecture test has a line for."""
    for node in ast.parse(test.read_text()).body:
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "MAY_IMPORT"
            and isinstance(node.value, ast.Dict)
        ):
            return {ast.literal_eval(key) for key in node.value.keys if key is not None}
    raise SystemExit(f"error: {test} has no table MAY_IMPORT")


def sizes(folder: Path) -> Figures:
    """The longest file and function of the package, and lines in all."""
    files: list[tuple[int, str]] = []
    functions: list[tuple[int, str]] = []
    for path, text in sources(folder / "gardener"):
        name = str(path.relative_to(folder))
        files.append((text.count("\n"), name))
        functions += [
            (_length(node), f"{name}: {node.name}")
            for node in ast.walk(ast.parse(text))
            if isinstance(node, Function)
        ]
    return {
        "longest_file": max(files),
        "longest_function": max(functions),
        "lines": {
            "gardener": sum(length for length, _ in files),
            **{each: _lines(folder / each, "*.py") for each in ("tests", "benchmarks")},
            "docs": _lines(folder / "docs", "*.md") + _lines(folder, "README.md"),
        },
    }


def _length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _lines(folder: Path, pattern: str) -> int:
    found = folder.glob(pattern) if pattern == "README.md" else folder.rglob(pattern)
    return sum(path.read_text().count("\n") for path in found)


# --- measured ------------------------------------------------------------------------------------


def run(folder: Path, *command: str) -> str:
    """What a Python command prints that runs in the checkout and imports from there."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed: {done.stdout[-2000:]}")
    return done.stdout


def verdict(folder: Path) -> Figures:
    """Calls, files and changes of file of one verdict at the holder."""
    printed = run(folder, str(HERE / "verdict.py"), str(folder), *TRACED)
    return dict(json.loads(printed.splitlines()[-1]))


def holder_milliseconds(folder: Path) -> Figures:
    """The holder's processor time for a segment, by policy."""
    printed = run(folder, "-m", "benchmarks.holder", *TIMED)
    found = re.findall(r"^(\w+) +([0-9.]+) ms a segment", printed, re.MULTILINE)
    return {name: float(milliseconds) for name, milliseconds in found}


def core_test_seconds(folder: Path) -> float:
    """Seconds of the tests of the protocol and of decoding, the start of Python included. A
    checkout whose tests are in one folder runs the files of the same names."""
    names = [path.name for room in CORE_TESTS for path in _tests(HERE.parent, room)]
    tests = [str(path) for room in CORE_TESTS for path in _tests(folder, room)] or [
        str(folder / "tests" / name) for name in names if (folder / "tests" / name).exists()
    ]
    begin = time.monotonic()
    run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    return round(time.monotonic() - begin, 1)


def _tests(folder: Path, room: str) -> list[Path]:
    return sorted((folder / "tests" / room).glob("test_*.py"))


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=HERE.parent)
    parser.add_argument("--static", action="store_true", help="only what the source tells")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    found: Figures = {**doors(folder), **sizes(folder)}
    if not arguments.static:
        found["core_test_seconds"] = core_test_seconds(folder)
        found["one_verdict"] = verdict(folder)
        found["holder_ms_per_segment"] = holder_milliseconds(folder)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, figure in found.items():
        print(f"{name.replace('_', ' '):24} {_plain(figure)}")


def _plain(figure: Any) -> str:
    """One line for a person."""
    if isinstance(figure, dict):
        named = ((key.replace("_", " "), value) for key, value in figure.items())
        return ", ".join(
            f"{key} ({_plain(value)})" if isinstance(value, dict) else f"{key} {value}"
            for key, value in named
        )
    if isinstance(figure, tuple):
        return f"{figure[0]} lines, {figure[1]}"
    if isinstance(figure, list):
        return f"{len(figure)}: {', '.join(figure)}" if figure else "none"
    return str(figure)


if __name__ == "__main__":
    main()
