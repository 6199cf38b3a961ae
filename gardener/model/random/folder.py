"""Random models as folders, in floats or quantised: written some rows at a time."""

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from gardener.errors import UserError
from gardener.model.checkpoint.folders import is_empty, write_json
from gardener.model.checkpoint.grouped_parts import Layout
from gardener.model.checkpoint.notes import WHOLE
from gardener.model.checkpoint.pieces import FILE, rounded_layout
from gardener.model.checkpoint.quantised import Quantised
from gardener.model.checkpoint.safetensors_writer import Entry, SafetensorsWriter
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD
from gardener.model.kernels.rounding import rounded
from gardener.model.quants import GROUP, GROUPED
from gardener.model.random.pool import Parts, Pool
from gardener.model.random.shapes import matrices, norms
from gardener.model.random.tokenizer import write_tokenizer
from gardener.model.tensors import dtype_of
from gardener.runtime.files import check_room, whole_folder

_SLACK = 64 << 20  # bytes for tokenizer and config


def write_folder(
    config: Mapping[str, Any],
    out: Path,
    *,
    dtype: str = "bfloat16",
    quantised: Quantised | None = None,
    seed: int = 0,
) -> None:
    """A random model with this `config.json`.

    dtype      of what is not quantised
    quantised  how to quantise its matrices, but for the embedding; None: not
    seed       another one gives another model; the same matrices, whatever they are stored in

    Raises UserError: `out` is in use, or the disk is too full.
    """
    if not is_empty(out):
        raise UserError(f"{out} is not empty: give --out a folder that does not exist yet")
    model = _Random(config, dtype_of(dtype), quantised, seed)
    check_room(out, sum(entry.nbytes for entry in model.entries.values()) + _SLACK)
    with whole_folder(out) as folder:
        noted = dict(config) | {"dtype": dtype}
        if quantised is not None:
            noted["gardener"] = msgspec.to_builtins(quantised)
        write_json(folder / "config.json", noted)
        write_tokenizer(config["vocab_size"], folder)
        model.write(folder)


class _Random:
    """Matrices and what they are stored in."""

    def __init__(
        self,
        config: Mapping[str, Any],
        dtype: torch.dtype,
        quantised: Quantised | None,
        seed: int,
    ) -> None:
        self._dtype, self._how = dtype, quantised
        self._pool = cache(partial(_pool, seed, dtype))
        found = [(name, name, shape, std) for name, shape, std in matrices(config)]
        if config["tie_word_embeddings"] and self._layout(HEAD) is not None:
            found.append((HEAD, *found[0][1:]))  # the embedding itself stays in floats
        self._matrices = found
        """Each one's name, the name of the one that it equals, shape, and standard deviation."""
        self._norms = {name: Entry(dtype, (config["hidden_size"],)) for name in norms(config)}

    @property
    def entries(self) -> dict[str, Entry]:
        """All tensors of the file."""
        found = dict(self._norms)
        for name, _, shape, _ in self._matrices:
            layout = self._layout(name)
            floats = {name: Entry(self._dtype, shape)}
            found |= floats if layout is None else layout.entries(name, *shape)
        return found

    def write(self, folder: Path) -> None:
        layouts = {name: self._layout(name) for name, *_ in self._matrices}
        notes = {name: str(layout.note) for name, layout in layouts.items() if layout}
        if self._how is not None:
            notes[WHOLE] = self._how.name
        with SafetensorsWriter(folder / FILE, self.entries, notes) as writer:
            for name, entry in self._norms.items():
                writer.write(name, torch.ones(entry.shape, dtype=entry.dtype))
            for name, drawn, shape, std in self._matrices:
                for first, parts in self._pool(std, layouts[name]).cut(drawn, shape):
                    for part, rows in parts.items():
                        writer.write(name + part, rows, first)

    def _layout(self, name: str) -> Layout | None:
        """None: in floats."""
        how = self._how
        if how is None or name == EMBEDDING:
            return None
        if name != HEAD:
            return rounded_layout(GROUPED[how.quant], how.group)
        return None if how.quant_head == "none" else rounded_layout(GROUPED[how.quant_head], GROUP)


def _pool(seed: int, dtype: torch.dtype, std: float, layout: Layout | None) -> Pool:
    if layout is None:
        return Pool(std, GROUP, seed, lambda numbers: {"": numbers.to(dtype)})

    def form(numbers: Tensor) -> Parts:
        return layout.parts("", rounded(numbers, layout.bits, layout.group))

    return Pool(std, layout.group, seed, form)
