"""Build the model's parts from a checkpoint, layer by layer.

A layer is read, fused, brought into its final form, and what was read is released before the next
one. So loading takes little more memory than the slice itself: one layer is there twice, or three
times where its weights are widened (`kernels/widened.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psutil
import torch
from torch import Tensor

from gardener.errors import UserError
from gardener.model.architecture import WAY_OUT, Architecture
from gardener.model.checkpoint.config import part_of, unreadable
from gardener.model.checkpoint.slices import Slice
from gardener.model.checkpoint.tensors import EMBEDDING, NORM, Checkpoint
from gardener.model.head import Head
from gardener.model.kernels.bitsandbytes_linear import quantised
from gardener.model.kernels.interface import Linear, Make
from gardener.model.kernels.linear import linear
from gardener.model.llama import Block, BlockWeights
from gardener.model.rotary import Rotary
from gardener.model.tensors import dtype_of
from gardener.runtime.wording import bare_span


@dataclass(frozen=True, eq=False)
class Whole:
    """All parts of a model, for those who run it in another way than a stage does.

    table   the embedding [vocab, width], on the CPU in the checkpoint's own dtype
    matrix  what the head multiplies with, [vocab, width]; the table where the two are tied
    """

    architecture: Architecture
    blocks: Sequence[Block]
    table: Tensor
    matrix: Tensor
    head: Head
    rotary: Rotary


def load_whole(folder: Path, *, dtype: str, device: str) -> Whole:
    """All layers of the model in `folder`. Raises UserError."""
    target = device_of(device)
    architecture = Architecture.read(folder)
    check_rotary(folder, architecture)
    held_slice(folder, architecture, Slice(0, architecture.layers, architecture.layers))
    loader = Loader(folder, architecture, dtype_of(dtype), target, "none")
    with torch.inference_mode():
        blocks = [loader.block(layer, layer) for layer in range(architecture.layers)]
        table, matrix, head = loader.table(), loader.matrix(), loader.head()
    return Whole(
        architecture, blocks, table, matrix, head, Rotary(architecture, dtype_of(dtype), target)
    )


def stored_slice(folder: Path) -> Slice | None:
    """The layers that a folder written by `split` holds; None: an ordinary model folder."""
    part = part_of(folder)
    if part is None:
        return None
    if not part.stage:
        raise UserError(f"{folder} is the holder's folder of a split model: it has no layers")
    try:
        return Slice(part.first, part.end, part.layers)
    except UserError as error:
        file = folder / "config.json"
        raise UserError(f"{file}: gardener: {error}: split the model anew") from error


def check_rotary(folder: Path, architecture: Architecture) -> None:
    """Tried out, since it trusts what the config says of its scaling. Raises UserError."""
    try:
        sound = Rotary(architecture, torch.float32, torch.device("cpu")).sound
    except Exception as error:  # settings that are missing or of odd lengths end in any of them
        raise unreadable(folder, error, WAY_OUT) from error
    if not sound:
        file = folder / "config.json"
        raise UserError(
            f"{file}: the rotary settings make no sense: {architecture.rope}: {WAY_OUT}"
        )


def held_slice(folder: Path, architecture: Architecture, held: Slice | None) -> Slice:
    stored = stored_slice(folder)
    if held is None:
        return stored or Slice(0, architecture.layers, architecture.layers)
    if held.layers != architecture.layers:
        raise UserError(f"{folder} has {architecture.layers} layers, not {held.layers}")
    if stored and held != stored:
        raise UserError(f"{folder} holds {stored} only, not {bare_span(held.first, held.end)}")
    return held


def device_of(name: str) -> torch.device:
    """Raises UserError if this machine does not have it."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"device '{name}' cannot be used here: {reason}") from error
    return device


def free_memory(device: torch.device) -> int:
    """Bytes of this device that nobody uses now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


class Loader:
    """Reads the parts of one slice, each brought into its final form before the next is read."""

    def __init__(
        self,
        folder: Path,
        architecture: Architecture,
        dtype: torch.dtype,
        device: torch.device,
        quant: str,
    ) -> None:
        self._checkpoint = Checkpoint(folder, dtype)
        self._architecture, self._dtype, self._device = architecture, dtype, device
        self._batch_invariant = dtype != torch.float32 or quant != "none"
        self._linear: Make = linear if quant == "none" else quantised(quant)

    def block(self, layer: int, index: int) -> Block:
        """Layer `layer` of the model, the `index`th of the stage."""
        s, p = self._architecture, f"model.layers.{layer}."
        queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
        qkv = {
            f"{p}self_attn.{n}_proj": rows
            for n, rows in zip("qkv", (queries, keys, keys), strict=True)
        }
        gate_up = {f"{p}mlp.{n}_proj": s.inner for n in ("gate", "up")}
        normed = ("q_norm", "k_norm") if s.qk_norm else ()
        norms = {n: self._vector(f"{p}self_attn.{n}.weight", s.head_dim) for n in normed}
        weights = BlockWeights(
            attention_norm=self._vector(f"{p}input_layernorm.weight", s.width),
            qkv=self._fused(qkv, s.width, s.qkv_bias),
            out=self._fused({f"{p}self_attn.o_proj": s.width}, queries, s.out_bias),
            mlp_norm=self._vector(f"{p}post_attention_layernorm.weight", s.width),
            gate_up=self._fused(gate_up, s.width, s.mlp_bias),
            down=self._fused({f"{p}mlp.down_proj": s.width}, s.inner, s.mlp_bias),
            **norms,
        )
        self.release()
        return Block(s, weights, index, s.windows[layer], batch_invariant=self._batch_invariant)

    def release(self) -> None:
        """Give back the memory of what was read, see `Checkpoint.release`."""
        self._checkpoint.release()

    def table(self) -> Tensor:
        """On the CPU the embedding stays in the mapped file: only rows that are used get read. One
        that is quantised there is dequantised, all of it."""
        table = self._embedding
        return table if self._device.type == "cpu" else table.to(self._device, self._dtype)

    @cached_property
    def _embedding(self) -> Tensor:
        return self._checkpoint.read(
            EMBEDDING, (self._architecture.vocab, self._architecture.width)
        )

    def head(self) -> Head:
        norm = self._vector(NORM, self._architecture.width)
        weight = self.matrix().to(self._device, self._dtype)
        return Head(norm, self._architecture.eps, linear(weight, None))

    def matrix(self) -> Tensor:
        """The output matrix as it is stored."""
        name = self._checkpoint.head(self._architecture.tied)
        if name == EMBEDDING:
            return self._embedding
        return self._checkpoint.read(name, (self._architecture.vocab, self._architecture.width))

    def _fused(self, parts: dict[str, int], inputs: int, bias: bool) -> Linear:
        """One linear layer out of several that read the same rows: outputs by name."""
        weight = self._join([self._tensor(f"{n}.weight", (k, inputs)) for n, k in parts.items()])
        if not bias:
            return self._linear(weight, None)
        return self._linear(
            weight, self._join([self._tensor(f"{n}.bias", (k,)) for n, k in parts.items()])
        )

    def _join(self, parts: list[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _vector(self, name: str, size: int) -> Tensor:
        return self._tensor(name, (size,)).clone()

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self._checkpoint.read(name, shape).to(self._device, self._dtype)
