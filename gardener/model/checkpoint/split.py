"""Cut a model into one folder per stage, so that each machine needs only its own files.

    DIR/stage-1 ... stage-N   config.json (with a `gardener` block), model.safetensors or model.gguf
    DIR/holder                config and tokenizer, and what a draft head may borrow: embedding
                              and output matrix
    DIR/manifest.json         ranges, sizes, sha256 of every file, fingerprint, source

Hardly more than one tensor is in memory at a time. Stages may be written quantised, as they are
loaded then; the holder's part stays in floats. DIR appears when all of it is written, or not at
all.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.config import part_of
from gardener.model.checkpoint.folders import is_empty, read_json, sha256, write_json
from gardener.model.checkpoint.gguf_split import write_part
from gardener.model.checkpoint.pieces import Copied, Piece, pieces, size_of, write_pieces
from gardener.model.checkpoint.quantised import Quantised, unquantised
from gardener.model.checkpoint.slices import EmbeddingAndHead, Slice
from gardener.model.checkpoint.tensors import (
    EMBEDDING,
    Checkpoint,
    end_tensors,
    fingerprint,
    missing,
)
from gardener.model.tensors import dtype_of
from gardener.runtime.files import check_room, whole_folder

_HOLDER_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
)
_SLACK = 16 << 20  # bytes for headers, tokenizer and configs


@dataclass(frozen=True)
class Stored:
    """What to write weights as.

    dtype      of what is not quantised; keep: as it is stored
    quantised  how to quantise; None: not
    """

    dtype: str = "keep"
    quantised: Quantised | None = None

    def mark(self, source: Path) -> str:
        """The fingerprint of what is made of the model in `source`: rounded weights are another
        one. How it is quantised comes first, for `unquantised`."""
        mark = unquantised(fingerprint(source))
        if self.dtype != "keep":
            mark = f"{self.dtype}-{mark}"
        return mark if self.quantised is None else f"{self.quantised.mark}{mark}"


def split(
    source: Path,
    slices: Sequence[Slice],
    out: Path,
    *,
    stored: Stored = Stored(),
    name: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write the stages of the model in `source` to `out` and return the manifest.

    stored what to write; a source that is quantised stays as it is
    name   what the manifest calls the source; the folder's name by default

    Raises UserError: `out` is in use, the disk is too full, a tensor is missing, the source is
    quantised otherwise.
    """
    if not is_empty(out):
        raise UserError(f"{out} is not empty: give --out a folder that does not exist yet")
    if part_of(source) is not None:
        raise UserError(f"{source} is one stage of a model that was split already")
    stored = _agreed(source, stored)
    cut = _Cut(source, stored)
    plan = [cut.stage(held) for held in slices]
    check_room(out, sum(map(cut.size, plan)) + _SLACK)
    mark = stored.mark(source)
    with whole_folder(out) as folder:
        _write_holder(source, folder / "holder", mark, name or source.name)
        cut.write(cut.borrowed(), folder / "holder", None)
        for stage, (held, part) in enumerate(zip(slices, plan, strict=True), 1):
            say(f"stage {stage}: {held}")
            (folder / f"stage-{stage}").mkdir()
            cut.write(part, folder / f"stage-{stage}", stored.quantised)
            _write_config(source, folder / f"stage-{stage}", stage, held, mark, stored)
        manifest = _manifest(folder, slices, name or source.name, mark, stored)
        write_json(folder / "manifest.json", manifest)
    return manifest


def _agreed(source: Path, stored: Stored) -> Stored:
    """The same for a source that may be quantised. Raises UserError where it is so otherwise."""
    found = Checkpoint(source).how_quantised()
    if found is None:
        return stored
    if stored.quantised not in (None, found):
        raise UserError(
            f"{source} is stored in {found.quant}, in groups of {found.group}, with the head "
            f"in {found.quant_head}: leave --quant out, or split the model it was made from"
        )
    return replace(stored, quantised=found)


class _Cut:
    """What is written of a model, part by part."""

    def __init__(self, source: Path, stored: Stored) -> None:
        self._checkpoint = Checkpoint(source)
        self._head = self._checkpoint.head(Architecture.read(source).tied)
        self._dtype = None if stored.dtype == "keep" else dtype_of(stored.dtype)
        self._how = stored.quantised

    def stage(self, held: Slice) -> list[Piece]:
        """Of a stage. Raises UserError if a tensor that every slice has is missing."""
        names = _names(self._checkpoint, self._head, held)
        if self._how is not None and not held.is_first:
            names = [name for name in names if name != EMBEDDING]
        head = self._head if held.is_last else None
        return pieces(self._checkpoint, names, self._dtype, self._how, head)

    def borrowed(self) -> list[Piece]:
        """What a draft head may borrow, as it is in the source."""
        shared = self._head == EMBEDDING
        names = [
            name for name in self._checkpoint.names() if EmbeddingAndHead().holds(name, shared)
        ]
        return pieces(self._checkpoint, names, self._dtype, None, self._head)

    def size(self, part: Sequence[Piece]) -> int:
        """Bytes of weights that will be written."""
        if self._stays(part):
            return sum(self._checkpoint.info(piece.source).nbytes for piece in part)
        return size_of(part)

    def write(self, part: Sequence[Piece], folder: Path, how: Quantised | None) -> None:
        """Tensors of a GGUF file stay in one if they stay what they are. `how` the folder says
        that it is quantised."""
        if self._stays(part):
            write_part(self._checkpoint, [piece.source for piece in part], folder)
        else:
            write_pieces(part, folder, how)

    def _stays(self, part: Sequence[Piece]) -> bool:
        copied = (isinstance(piece, Copied) and piece.dtype is None for piece in part)
        return self._checkpoint.gguf is not None and all(copied)


def _names(checkpoint: Checkpoint, head: str, held: Slice) -> list[str]:
    """The tensors of a slice; `head`: the name of the output matrix. Raises UserError if one that
    every slice has is missing."""
    names = [name for name in checkpoint.names() if held.holds(name, head == EMBEDDING)]
    names = [name for name in names if "rotary_emb" not in name]
    for layer in range(held.first, held.end):
        if not any(name.startswith(f"model.layers.{layer}.") for name in names):
            raise UserError(f"{checkpoint.folder} has no tensors of layer {layer}")
    for required in end_tensors(held, head):
        if required not in names:
            raise missing(required, checkpoint.folder)
    return names


def _write_config(
    source: Path, folder: Path, stage: int, held: Slice, mark: str, stored: Stored
) -> None:
    config = read_json(source / "config.json")
    if stored.dtype != "keep":
        config["dtype"] = stored.dtype
        config.pop("torch_dtype", None)
    config["gardener"] = {
        "stage": stage,
        "first": held.first,
        "end": held.end,
        "layers": held.layers,
        "fingerprint": mark,
    }
    if stored.quantised is not None:
        config["gardener"] |= msgspec.to_builtins(stored.quantised)
    write_json(folder / "config.json", config)


def _write_holder(source: Path, folder: Path, mark: str, name: str) -> None:
    folder.mkdir()
    for pattern in _HOLDER_FILES:
        for file in sorted(source.glob(pattern)):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)
    config = read_json(source / "config.json")
    config.setdefault("_name_or_path", name)  # a chat template may be chosen by it
    config["gardener"] = {"stage": 0, "fingerprint": mark}
    write_json(folder / "config.json", config)


def _manifest(
    folder: Path, slices: Sequence[Slice], source: str, mark: str, stored: Stored
) -> dict[str, Any]:
    stages = [
        {
            "stage": stage,
            "folder": f"stage-{stage}",
            "layers": f"{held.first}-{held.end - 1}",
            "bytes": sum(
                file.stat().st_size
                for file in (folder / f"stage-{stage}").glob("model.*")
                if file.suffix != ".json"
            ),
        }
        for stage, held in enumerate(slices, 1)
    ]
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        "source": source,
        "fingerprint": mark,
        "dtype": stored.dtype,
        "quantised": None if stored.quantised is None else msgspec.to_builtins(stored.quantised),
        "stages": stages,
        "files": {
            str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256(file)}
            for file in files
        },
    }
