"""Settings from a TOML file, strict about what it does not know.

The command line goes before the environment (`GARDENER_*`), which goes before the file. A file has
one table for each command:

    [node]
    model = "/models/vicuna-7b"
    dtype = "float16"
"""

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gardener.errors import UserError


def load(path: Path, section: str, known: Collection[str]) -> dict[str, Any]:
    """The settings of one command. Keys are the long options, with - or _.

    Raises UserError for a file that cannot be read, is no TOML, or has a key that is not known.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"the settings in {path} cannot be read: {error}") from error
    table = tables.get(section, {})
    if not isinstance(table, dict):
        raise UserError(f"{path}: {section} must be a table, write [{section}]")
    settings = {key.replace("-", "_"): value for key, value in table.items()}
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise UserError(
            f"{path}: [{section}] knows no {unknown[0]!r}; it knows {', '.join(sorted(known))}"
        )
    return settings
