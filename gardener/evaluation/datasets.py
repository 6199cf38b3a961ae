"""Prompts from files: the user's, and those of the package."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from gardener.errors import UserError, reason
from gardener.runtime.wording import check_text

JSON_SUFFIXES = {".jsonl", ".json"}
"""Files with these have a JSON object per line; any other file has a prompt per line."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """The user's turns of one conversation. `line`: where it stands in its file, from 1."""

    data: str
    line: int
    turns: tuple[str, ...]


def read_conversations(paths: Sequence[Path], most: int | None) -> tuple[Conversation, ...]:
    """The conversations in these files, at most `most` of each; without files, those of the
    package.

    A file is a data set with its name. Raises UserError.
    """
    if not paths:
        return _own(most)
    named: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        named[path.stem if path.stem not in named else str(path)] = path
    return tuple(each for name, path in named.items() for each in _read(path, name, most))


def _own(most: int | None) -> tuple[Conversation, ...]:
    """The package's prompts; each of their categories is a data set."""
    with as_file(files("gardener.evaluation") / "prompts.jsonl") as path:
        lines = [(number, json.loads(line)) for number, line in _lines(path)]
    sets: dict[str, list[Conversation]] = {}
    for number, row in lines:
        found = sets.setdefault(row["category"], [])
        found.append(Conversation(row["category"], number, tuple(row["turns"])))
    return tuple(each for found in sets.values() for each in found[:most])


def _read(path: Path, name: str, most: int | None) -> list[Conversation]:
    found: list[Conversation] = []
    for number, line in _lines(path):
        if most is not None and len(found) == most:
            break
        whole = path.suffix in JSON_SUFFIXES
        turns = _turns(line, f"{path}, line {number}") if whole else (line.strip(),)
        found.append(Conversation(name, number, turns))
    if not found:
        raise UserError(f"{path} holds no prompt: write one a line, or take another file")
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the prompts in {path} cannot be read: {reason(error)}") from error
    # Not splitlines: a row may hold other ends of lines, as JSON allows.
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _turns(line: str, where: str) -> tuple[str, ...]:
    like = 'a row is like {"turns": ["a prompt"]}'
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: this is no JSON ({error}); {like}") from error
    if not isinstance(row, dict) or "turns" not in row:
        raise UserError(f"{where}: the field turns is missing; {like}")
    turns = row["turns"]
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{where}: turns must be a list of at least one text; {like}")
    for number, turn in enumerate(turns):
        if not isinstance(turn, str) or not turn.strip():
            raise UserError(f"{where}: turns[{number}] must be a text that is not empty; {like}")
        check_text(turn, f"{where}: turns[{number}]")
    return tuple(turns)
