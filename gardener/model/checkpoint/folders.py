"""Small questions about the folders and files of models."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gardener.errors import UserError, reason

POINTER = b"version https://git-lfs"
POINTER_BYTES = 1024
"""How git-lfs begins a note that it leaves in the place of a large file, and the most it may
take (git-lfs, docs/spec.md)."""


def sha256(file: Path) -> str:
    """Of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_empty(folder: Path) -> bool:
    """Whether there is nothing at this path, or a folder without entries."""
    return not folder.exists() or (folder.is_dir() and not os.listdir(folder))


def weight_bytes(folder: Path) -> int:
    """Bytes of all files of weights in a folder; 0 if there are none."""
    kinds = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
    return sum(each.stat().st_size for each in folder.iterdir() if each.suffix in kinds)


def refuse_pointer(path: Path) -> None:
    """Raise UserError if git-lfs left a note here that says where the file itself is."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(POINTER_BYTES)
    except (OSError, ValueError):  # whoever reads the file says it better
        return
    if begin.startswith(POINTER):
        size = re.search(rb"^size (\d+)$", begin, re.MULTILINE)
        held = f" of {int(size[1]) / 1e6:.0f} MB" if size and int(size[1]) >= 1e6 else ""
        raise UserError(
            f"{path} is a git-lfs pointer, not the file{held} that it stands for: run `git lfs "
            f"pull` in {path.parent}, or download that file"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError."""
    refuse_pointer(path)
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


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, in ASCII: half of a surrogate pair, which JSON may hold, is no UTF-8."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
