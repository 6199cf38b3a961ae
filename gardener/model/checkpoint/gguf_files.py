"""GGUF models in several files: NAME-00001-of-00003.gguf and so on, as `llama-gguf-split` and the
converters write them. The first one has the metadata, each has some of the tensors.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gardener.errors import UserError
from gardener.model.checkpoint.gguf_header import GGUFHeader, GGUFTensor, read_header

FORMAT = 1
"""Of what is kept of a GGUF file. To be counted up where index, config or tokenizer are written in
another way: what was made before is then made anew."""

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")

_OF_EVERY_PART = re.compile(r"split\..*|general\..*")


@dataclass(frozen=True)
class GGUFModel:
    """All files of a model as if they were one. `files`: which one has a tensor."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]
    files: Mapping[str, Path]


def files_of(gguf: Path) -> list[Path]:
    """All files of the model that this one belongs to, the first one first. Raises UserError if one
    is missing."""
    match = _PART.fullmatch(gguf.name)
    if match is None:
        return [gguf]
    stem, count = match[1], int(match[3])
    if not 1 <= int(match[2]) <= count:
        raise UserError(f"{gguf.name} is no name of a part: there are {count}")
    files = [gguf.with_name(f"{stem}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"{gguf} is one of {count} parts of a model, and {', '.join(missing)} is not beside "
            "it: all are needed, in one folder"
        )
    return files


def folder_name(gguf: Path) -> str:
    """What the folder is called that is kept of it (`gguf.py`). It follows from where the files
    are, how large and of what time, so that a file that was changed gets a folder of its own.
    Raises UserError if a part of the model is missing."""
    files = files_of(gguf)
    states = [(str(f.absolute()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    digest = hashlib.sha256(json.dumps([FORMAT, states]).encode()).hexdigest()
    return f"{files[0].stem}-{digest[:12]}"


def read_model(files: list[Path]) -> GGUFModel:
    """Raises UserError for files that do not make one model."""
    headers = [read_header(file) for file in files]
    tensors: dict[str, GGUFTensor] = {}
    where: dict[str, Path] = {}
    for number, (file, header) in enumerate(zip(files, headers, strict=True)):
        _check_part(file, header, number, len(files))
        twice = sorted(tensors.keys() & header.tensors.keys())
        if twice:
            raise UserError(f"{file} has the tensor {twice[0]}, and so has a part before it")
        tensors |= header.tensors
        where |= dict.fromkeys(header.tensors, file)
    expected = headers[0].metadata.get("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise UserError(f"{files[0]} and its parts have {len(tensors)} tensors, not {expected}")
    return GGUFModel(headers[0].metadata, tensors, where)


def _check_part(file: Path, header: GGUFHeader, number: int, count: int) -> None:
    said = header.metadata.get("split.count", 1), header.metadata.get("split.no", 0)
    if max(1, said[0]) != count:
        raise UserError(
            f"{file} is one of {said[0]} parts of a model: give the first of them, named like "
            f"NAME-00001-of-{said[0]:05}.gguf, with the others beside it"
        )
    if said[1] != number:
        raise UserError(
            f"{file} is part {said[1] + 1} of its model, and named as part {number + 1}"
        )
    odd = [key for key in header.metadata if not _OF_EVERY_PART.fullmatch(key)]
    if number and odd:
        raise UserError(f"{file} has {odd[0]}, which belongs into the first part")
