"""Settings from a TOML file, strict about what it does not know.

The command line goes before the environment (`GARDENER_*`), which goes before the file. A file has
one table for each command:

    [node]
    model = "/models/vicuna-7b"
    dtype = "float16"
"""

import tomllib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection
from cyclopts.config import Dict

from gardener.errors import UserError, reason

SECTIONS = (
    "node",
    "generate",
    "chat",
    "serve",
    "verify",
    "doctor",
    "eval",
    "plan",
    "train-draft",
)
"""The tables that a file may have."""


def from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give options that are set neither on the command line nor in the environment the value that
    the file of `--config` has for them. Raises UserError."""
    given = [token.value for each in arguments if "--config" in each.names for token in each.tokens]
    if given:
        # A file sets `graphs = false`: it has no key for --no-graphs.
        options = {name for each in arguments for name in each.positives if name.startswith("--")}
        known = {option.removeprefix("--") for option in options - {"--config"}}
        settings = load(Path(given[-1]), commands[-1] if commands else "node", known)
        give(settings, given[-1], app, commands, arguments)


def give(
    settings: Mapping[str, Any],
    source: str,
    app: App,
    commands: tuple[str, ...],
    arguments: ArgumentCollection,
) -> None:
    """Give options that nothing has set yet these values, by long option without --.

    They are nested under the names of the command. Else Dict would leave out, without a word, an
    option that is called as a command is: --keys."""
    nested: dict[str, Any] = dict(settings)
    for name in reversed(commands):
        nested = {name: nested}
    Dict(nested, source=source)(app, commands, arguments)


def load(path: Path, section: str, known: Set[str]) -> dict[str, Any]:
    """The settings of one command, by long option without --. `known`: those that it has.

    Raises UserError for a file that cannot be read, is no TOML, or has a table or a key that is not
    known.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"the settings in {path} cannot be read: {reason(error)}") from error
    strange = sorted(tables.keys() - set(SECTIONS))
    if strange:
        raise UserError(f"{path}: no table [{strange[0]}]; there are {', '.join(SECTIONS)}")
    table = tables.get(section, {})
    if not isinstance(table, dict):
        raise UserError(f"{path}: {section} must be a table, write [{section}]")
    settings = {key.replace("_", "-"): value for key, value in table.items()}
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise UserError(
            f"{path}: [{section}] knows no {unknown[0]!r}; it knows {', '.join(sorted(known))}"
        )
    return settings
