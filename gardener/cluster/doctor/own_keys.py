"""The keys of this machine, for the parts that it has in the ring."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gardener.errors import UserError
from gardener.net.keys import Keys, read_keys
from gardener.protocol.certificates import NAME


@dataclass(frozen=True)
class OwnKeys:
    """What was found in a folder.

    folder    where we looked; None: nobody named one
    keys      with which we look; None: without
    problems  what is wrong with those that are needed here, by name of the part in the ring
    warnings  which of them expire soon
    """

    folder: Path | None = None
    keys: Keys | None = None
    problems: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()


WITHOUT = OwnKeys()
"""Nobody named a folder."""


def own_keys(folder: Path | None, names: Sequence[str]) -> OwnKeys:
    """Those of `names` (`holder`, `stage-2`, `spare-1`), the parts of this machine. Where it has
    none, any that are there will do to look."""
    if folder is None:
        return WITHOUT
    folder = folder.expanduser()
    now = time.time()
    found: list[Keys] = []
    problems, warnings = [], []
    for name in names or _there(folder):
        try:
            keys = read_keys(folder, name, now)
        except UserError as error:
            problems.append((name, str(error)))
            continue
        found.append(keys)
        if warning := keys.warning(now):
            warnings.append((name, warning))
    return OwnKeys(folder, found[0] if found else None, tuple(problems), tuple(warnings))


def _there(folder: Path) -> list[str]:
    """For whom there are keys; the holder, if there are none at all."""
    names = sorted(path.stem for path in folder.glob("*.key") if NAME.fullmatch(path.stem))
    return names or ["holder"]
