"""Doors go one way: read from the imports, not from good intentions (design, section 3)."""

import ast
from pathlib import Path

import pytest

import gardener

ROOT = Path(gardener.__file__).parent
HEAVY = {"torch", "transformers", "asyncio", "rich", "uvloop", "typer"}

PURE = (
    "tree", "messages", "survey", "averages", "costs", "decoding", "pacing", "throttle", "policy",
    "policy.view", "policy.sizes", "policy.baselines", "policy.chunked", "policy.pipedec",
    "policy.flowspec", "policy.published", "policy.alternating", "policy.continuous", "errors",
    "config",
    "datasets", "draft.ngram", "events", "segments", "features", "passage", "files",
    "evaluation.plan", "evaluation.passes", "evaluation.tally", "evaluation.results",
    "evaluation.timeline", "evaluation.repeats", "rates",
)  # fmt: skip
"""No socket, clock, tensor or terminal: these import nothing heavy."""

MAY_IMPORT = {
    "errors": set[str](),
    "files": {"errors"},
    "clock": set[str](),
    "trace": {"clock"},
    "compute": {"clock"},
    "tree": set[str](),
    "text": set[str](),
    "messages": set[str](),
    "config": {"errors"},
    "datasets": {"errors"},
    "survey": {"messages"},
    "averages": set[str](),
    "rates": set[str](),
    "costs": {"averages", "messages"},
    "policy": {"policy", "costs", "tree"},
    "pacing": {"costs", "policy"},
    "throttle": set[str](),
    "events": {"messages", "tree"},
    "segments": {"messages"},
    "features": {"errors", "messages", "segments"},
    "passage": {"messages"},
    "decoding": {"costs", "errors", "events", "messages", "policy", "tree"},
    "draft": {"draft", "tree", "stages", "errors", "files", "messages"},
    "net": {"net", "clock", "errors", "messages"},
    "evaluation": {"datasets", "errors", "evaluation", "files", "holder", "messages"}
    | {"policy", "prompts", "rates", "run", "trace"},
    "stages": {"stages", "costs", "errors", "files", "messages", "tree"},
}
"""Part of the house -> the parts it may import. What is not named here may import everything."""


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


@pytest.mark.parametrize("name", PURE)
def test_the_core_imports_nothing_heavy(name: str) -> None:
    assert not {each.split(".")[0] for each in imports(modules()[name])} & HEAVY


def test_the_network_knows_neither_tensors_nor_terminals() -> None:
    for name, path in modules().items():
        if name.startswith("net"):
            roots = {each.split(".")[0] for each in imports(path)}
            assert not roots & {"torch", "transformers", "rich", "typer"}, name


@pytest.mark.parametrize("name", [n for n in modules() if n.split(".")[0] in MAY_IMPORT])
def test_doors_go_one_way(name: str) -> None:
    assert parts_of(modules()[name]) <= MAY_IMPORT[name.split(".")[0]]


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
