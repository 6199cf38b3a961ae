"""Small questions about the folders and files of models."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from gardener.errors import UserError, reason


def sha256(file: Path) -> str:
    """Of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_empty(folder: Path) -> bool:
    """Whether there is nothing at this path, or a folder without entries."""
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
