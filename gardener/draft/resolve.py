"""Which draft head, and where it is: a name to a folder on this machine."""

from collections.abc import Callable
from pathlib import Path

from gardener.draft.shipped import heads
from gardener.errors import UserError
from gardener.model.checkpoint.folders import read_json
from gardener.model.checkpoint.resolve import HUB_ID


def resolve_head(head: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """The folder of a draft head: a folder, the name of one that is shipped, or a repository on
    the hub. Raises UserError."""
    path = Path(head).expanduser()
    if path.is_dir():
        read_json(path / "config.json")
        return path
    shipped = {folder.name: folder for folder in heads()}
    if head in shipped:
        return shipped[head]
    other_ways = "--head takes a folder or a hub id like owner/name"
    if shipped:
        other_ways += f", or names a head that is shipped: {', '.join(shipped)}"
    if not HUB_ID.fullmatch(head) or path.exists():
        raise UserError(f"there is no head {head}: {other_ways}")
    from gardener.model.checkpoint.hub import (
        Repository,  # late: a folder needs neither the hub nor torch
    )

    return Repository(head, None, "--head", other_ways, say).fetch_head()
