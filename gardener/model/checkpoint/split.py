"""Cut a model into one folder per stage, so that each machine needs only its own files.

    DIR/stage-1 ... stage-N   config.json (with a `gardener` block), model.safetensors or model.gguf
    DIR/holder                config and tokenizer, and what a draft head may borrow: embedding
                              and output matrix
    DIR/manifest.json         ranges, sizes, sha256 of every file, fingerprint, source

One stage is in memory at a time. DIR appears when all of it is written, or not at all.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.folders import is_empty, read_json, sha256, write_json
from gardener.model.checkpoint.gguf_split import write_part
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


def split(
    source: Path,
    slices: Sequence[Slice],
    out: Path,
    *,
    dtype: str = "keep",
    name: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write the stages of the model in `source` to `out` and return the manifest.

    dtype  keep: as stored; or what to convert the weights to
    name   what the manifest calls the source; the folder's name by default

    Raises UserError: `out` is in use, the disk is too full, a tensor is missing.
    """
    if not is_empty(out):
        raise UserError(f"{out} is not empty: give --out a folder that does not exist yet")
    if read_json(source / "config.json").get("gardener"):
        raise UserError(f"{source} is one stage of a model that was split already")
    target = None if dtype == "keep" else dtype_of(dtype)
    architecture, checkpoint = Architecture.read(source), Checkpoint(source)
    head = checkpoint.head(architecture.tied)
    plan = [_names(checkpoint, head, held) for held in slices]
    check_room(out, _size(checkpoint, plan, target) + _SLACK)
    mark = fingerprint(source)
    if dtype != "keep":  # rounded weights are another model
        mark = f"{dtype}-{mark}"
    with whole_folder(out) as folder:
        _write_holder(source, folder / "holder", mark, name or source.name)
        borrowed = [
            name for name in checkpoint.names() if EmbeddingAndHead().holds(name, head == EMBEDDING)
        ]
        _write_weights(checkpoint, borrowed, folder / "holder", target)
        for stage, (held, names) in enumerate(zip(slices, plan, strict=True), 1):
            say(f"stage {stage}: {held}")
            (folder / f"stage-{stage}").mkdir()
            _write_weights(checkpoint, names, folder / f"stage-{stage}", target)
            _write_config(source, folder / f"stage-{stage}", stage, held, mark, dtype)
        manifest = _manifest(folder, slices, name or source.name, mark, dtype)
        write_json(folder / "manifest.json", manifest)
    return manifest


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


def _size(checkpoint: Checkpoint, plan: list[list[str]], dtype: torch.dtype | None) -> int:
    """Bytes of weights that will be written."""
    infos = [checkpoint.info(name) for names in plan for name in names]
    checkpoint.release()
    if dtype is None:
        return sum(info.nbytes for info in infos)
    return sum(torch.Size(info.shape).numel() for info in infos) * dtype.itemsize


def _write_weights(
    checkpoint: Checkpoint, names: list[str], folder: Path, dtype: torch.dtype | None
) -> None:
    if checkpoint.gguf is not None and dtype is None:
        write_part(checkpoint, names, folder)
        return
    tensors = {}
    for name in names:
        # As stored, a tensor stays a view of the mapped file: written without being held.
        tensor = checkpoint.read(name)
        if dtype is not None:
            tensor = tensor.to(dtype)
            checkpoint.release()
        tensors[name] = tensor.contiguous()
    file = folder / "model.safetensors"
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise UserError(f"{file.parent.name} could not be written: {error}") from error
    file.chmod(0o644)
    checkpoint.release()


def _write_config(
    source: Path, folder: Path, stage: int, held: Slice, mark: str, dtype: str
) -> None:
    config = read_json(source / "config.json")
    if dtype != "keep":
        config["dtype"] = dtype
        config.pop("torch_dtype", None)
    config["gardener"] = {
        "stage": stage,
        "first": held.first,
        "end": held.end,
        "layers": held.layers,
        "fingerprint": mark,
    }
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
    folder: Path, slices: Sequence[Slice], source: str, mark: str, dtype: str
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
        "dtype": dtype,
        "stages": stages,
        "files": {
            str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256(file)}
            for file in files
        },
    }
