"""Folders that are whole or not there at all, and the sums of what is in them."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gardener.errors import UserError, reason


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, which becomes `target` if all goes well.

    On any error nothing is left. Whoever is second to finish the same target keeps the first one.
    Raises UserError where the disk is full or may not be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise UserError(f"cannot write to {target.parent}: {reason(error)}") from error
    try:
        yield draft
        draft.chmod(0o755)
        _rename(draft, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"the disk is full: {target} was not written") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"cannot write {target}: {reason(error)}") from error
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _rename(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)  # an empty folder in its place is replaced
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def check_room(folder: Path, nbytes: int) -> None:
    """Raise UserError if the disk of `folder` (or of its first parent that exists) is too full."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB left, but {nbytes / 1e9:.1f} GB are to be written"
        )


def sha256(file: Path) -> str:
    """Of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_empty(folder: Path) -> bool:
    """Is there nothing at this path, or a folder without entries?"""
    return not folder.exists() or (folder.is_dir() and not os.listdir(folder))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"there is no {path.name} in {path.parent}: a model is a folder as Hugging Face "
            "writes it, with config.json and safetensors files"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value
