"""A table of a TOML file, read strictly: every key is known, of its type, and read once.

What is wrong is said with file, table, key, value, and the way out.
"""

import difflib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gardener.errors import UserError

T = TypeVar("T")

MOST_SHOWN = 60
"""Characters of a value that a sentence repeats."""


class Table:
    """One table of `path`. `title`: how the file writes it, `[stage.2]`; empty for what stands
    above all tables. `defaults`: what holds for a key that it does not have."""

    def __init__(
        self,
        path: Path,
        title: str,
        values: Mapping[str, Any],
        known: Collection[str],
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises UserError for a key that is not `known`."""
        self.path, self.title = path, title
        self._values = {**(defaults or {}), **values}
        for key in values:
            if key not in known:
                raise self.error(_unknown(key, known))

    def error(self, why: str) -> UserError:
        """What is wrong in this table."""
        return UserError(f"{self.path}: {self.title}{': ' if self.title else ''}{why}")

    def has(self, key: str) -> bool:
        """Whether it, or its defaults, say something of it."""
        return key in self._values

    def text(self, key: str, example: str = "") -> str:
        """A text that must be there. `example`: how it is written. Raises UserError."""
        found = self.text_or(key, None, example)
        if found is None:
            raise self.error(f"{key} is missing: write {key} = {_quoted(example)}")
        return found

    def text_or(self, key: str, default: T, example: str = "...") -> str | T:
        """A text, or the default. Raises UserError."""
        given = self._values.get(key)
        if given is None:
            return default
        if not isinstance(given, str):
            text = _quoted(str(given) if isinstance(given, int | float) else example)
            raise self.error(f"{key} must be a text, not {shown(given)}: write {key} = {text}")
        if not given.strip() or not given.isprintable():
            raise self.error(f"{key} is {shown(given)}, which is no text: fill it, or leave it out")
        return given.strip()

    def one_of(self, key: str, known: Collection[str], default: str) -> str:
        """One of these. Raises UserError."""
        found = self.text_or(key, default)
        if found not in known:
            raise self.error(f"{key} {shown(found)} is unknown: take {', '.join(known)}")
        return found

    def number(self, key: str, least: int, most: int, example: int) -> int:
        """A whole number that must be there. Raises UserError."""
        found = self.number_or(key, least, most)
        if found is None:
            raise self.error(f"{key} is missing: write {key} = {example}")
        return found

    def number_or(self, key: str, least: int, most: int | None = None) -> int | None:
        """A whole number, or None. Raises UserError."""
        given = self._values.get(key)
        if given is None:
            return None
        if isinstance(given, bool) or not isinstance(given, int):
            bare = given.strip() if isinstance(given, str) else ""
            out = f": write {key} = {bare}" if bare.isdecimal() else ""
            raise self.error(f"{key} must be a whole number, not {shown(given)}{out}")
        if given < least or (most is not None and given > most):
            lies = f"starts at {least}" if most is None else f"lies between {least} and {most}"
            raise self.error(f"{key} is {given}, and {lies}")
        return given

    def amount_or(self, key: str) -> float | None:
        """A number above 0, or None. Raises UserError."""
        given = self._values.get(key)
        if given is None:
            return None
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise self.error(f"{key} must be a number, not {shown(given)}: write it without quotes")
        if not 0 < given < float("inf"):
            raise self.error(f"{key} is {given}, and must be more than 0")
        return float(given)

    def yes(self, key: str) -> bool:
        """Whether it is true; false if it is not there. Raises UserError."""
        return self.yes_or(key) or False

    def yes_or(self, key: str) -> bool | None:
        """True, false, or None if it is not there. Raises UserError."""
        given = self._values.get(key)
        if given is not None and not isinstance(given, bool):
            raise self.error(f"{key} must be true or false, not {shown(given)}")
        return given

    def list_or(self, key: str, known: Collection[str]) -> str | None:
        """Some of these with commas between, written as a list or as such a text; or None. Raises
        UserError."""
        given = self._values.get(key)
        if given is None:
            return None
        parts = given.split(",") if isinstance(given, str) else given
        if not isinstance(parts, list) or not parts or not all(isinstance(p, str) for p in parts):
            example = ", ".join(_quoted(each) for each in list(known)[:2])
            raise self.error(f"{key} must be a list, not {shown(given)}: write {key} = [{example}]")
        names = [part.strip() for part in parts]
        strange = [name for name in names if name not in known]
        if strange:
            raise self.error(f"{key} knows no {shown(strange[0])}: take {', '.join(known)}")
        return ",".join(names)

    def table(self, key: str, read: Callable[[Mapping[str, Any]], T]) -> T:
        """What `read` makes of the table of that name, an empty one if it is not there. Raises
        UserError."""
        given = self._values.get(key, {})
        if not isinstance(given, dict):
            raise self.error(f"{key} must be a table: write [{key}], and its keys below that")
        return read(given)

    def numbered(self, key: str) -> dict[int, Mapping[str, Any]]:
        """The tables [key.1], [key.2] and so on, without a gap, by number. Raises UserError."""
        given = self._values.get(key, {})
        if not isinstance(given, dict) or not all(isinstance(v, dict) for v in given.values()):
            raise self.error(
                f"{key} must be numbered tables: write [{key}.1], [{key}.2] and so on, the number "
                f"that gardener-node --{key} is given, and the keys of each below that"
            )
        for name in given:
            if not (name.isascii() and name.isdecimal()) or str(int(name)) != name or name == "0":
                raise self.error(f"[{key}.{name}] is no number: write [{key}.1], [{key}.2], ...")
        numbers = sorted(int(name) for name in given)
        for expected, number in enumerate(numbers, 1):
            if number != expected:
                raise self.error(
                    f"there is a [{key}.{number}], but no [{key}.{expected}]: number them from 1 "
                    "on, without a gap"
                )
        return {number: given[str(number)] for number in numbers}


def shown(value: object) -> str:
    """A value as the file would write it, if it is short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = _quoted(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def _quoted(text: str) -> str:
    return '"' + repr(text)[1:-1].replace('"', '\\"') + '"'


def _unknown(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"there is no key {shown(key)}: {meant}it knows {', '.join(known)}"
