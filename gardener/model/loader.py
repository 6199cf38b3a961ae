"""Build the model's parts from a checkpoint, layer by layer.

A layer is read, fused, brought into its final form, and what was read is released before the next
one. So loading takes little more memory than the slice itself: one layer is there twice, or three
times where its weights are widened (`kernels/widened.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from gardener.errors import UserError
from gardener.model.architecture import WAY_OUT, Architecture
from gardener.model.block import Block, BlockWeights, Layer
from gardener.model.checkpoint.config import part_of, unreadable
from gardener.model.checkpoint.slices import Slice
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD, NORM, Checkpoint
from gardener.model.device.named import device_of
from gardener.model.embedding import Embedding
from gardener.model.families import Mixture, Norms
from gardener.model.feed_forward import Dense, FeedForward
from gardener.model.finite import in_dtype
from gardener.model.fused_block import FusedBlock
from gardener.model.head import Head
from gardener.model.kernels import machine
from gardener.model.kernels.batch_invariant import batch_invariant
from gardener.model.kernels.exact import Exact
from gardener.model.kernels.interface import Linear, Make
from gardener.model.kernels.linear import linear
from gardener.model.kernels.onnx_halves import GroupedLayer
from gardener.model.linear_reader import LinearReader
from gardener.model.look_back import LookBack
from gardener.model.mixture import Experts, Router, check_device
from gardener.model.progress import Progress, Reading
from gardener.model.quants import GROUPED
from gardener.model.rotary import Rotary
from gardener.model.tensors import dtype_of
from gardener.runtime.memory import give_back
from gardener.runtime.wording import bare_span


@dataclass(frozen=True, eq=False)
class Whole:
    """All parts of a model, for those who run it in another way than a stage does.

    embed   tokens to the hidden states that enter the first layer
    table   the embedding [vocab, width], on the CPU in the checkpoint's own dtype
    matrix  what the head multiplies with, [vocab, width]; the table where the two are tied
    """

    architecture: Architecture
    blocks: Sequence[Layer]
    embed: Embedding
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
        embed = loader.embedding()
    rotary = Rotary(architecture, dtype_of(dtype), target)
    return Whole(architecture, blocks, embed, table, matrix, head, rotary)


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
            f"{file}: the rotary settings make no sense: {settings(architecture)}: {WAY_OUT}"
        )


def settings(architecture: Architecture) -> str:
    """Of the rotary embeddings, for people."""
    return ", ".join(str(dict(rope)) for rope in architecture.ropes)


def held_slice(folder: Path, architecture: Architecture, held: Slice | None) -> Slice:
    stored = stored_slice(folder)
    if held is None:
        return stored or Slice(0, architecture.layers, architecture.layers)
    if held.layers != architecture.layers:
        raise UserError(f"{folder} has {architecture.layers} layers, not {held.layers}")
    if stored and held != stored:
        raise UserError(f"{folder} holds {stored} only, not {bare_span(held.first, held.end)}")
    return held


_GATE_UP = ("gate_proj", "up_proj")

_NORMS: dict[Norms, dict[str, str]] = {
    "before": {
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
    },
    "after": {
        "out_norm": "post_attention_layernorm",
        "down_norm": "post_feedforward_layernorm",
    },
    "around": {
        "attention_norm": "input_layernorm",
        "out_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "down_norm": "post_feedforward_layernorm",
    },
}
"""Fields of `BlockWeights`, and what checkpoints call them. Some names mean two things."""


class Loader:
    """Reads the parts of one slice, each brought into its final form before the next is read."""

    def __init__(
        self,
        folder: Path,
        architecture: Architecture,
        dtype: torch.dtype,
        device: torch.device,
        quant: str,
        quant_head: str = "none",
    ) -> None:
        """`quant`, `quant_head`: kinds in `quants.QUANTS`, of the layers and of the head. Raises
        UserError."""
        if architecture.mixture is not None:
            check_device(device)
        self._checkpoint = Checkpoint(folder, dtype)
        self._checkpoint.how_quantised()  # raises where the weights are stored otherwise than said
        self._architecture, self._dtype, self._device = architecture, dtype, device
        rounds = (quant, quant_head) != ("none", "none")
        self._quant = quant
        self._linears = LinearReader(self._checkpoint, dtype, device, quant)
        self._head_linears = LinearReader(self._checkpoint, dtype, device, quant_head)
        # What a router says decides how later layers round, so it must be as exact as attention. On
        # a device, float32 is so as well: whatever the time, rows take numbers that agree.
        wide = rounds and dtype == torch.float32 and not machine.has_own_kernels(device)
        self._gate: Make = partial(batch_invariant, Exact) if wide else linear
        self._spread = 0.0
        self._nothing_else()

    def tell(self, held: Slice, progress: Progress) -> None:
        """From now on, tell how much of a slice has been read. Of the embedding nothing counts:
        its rows are read when they are asked for."""
        layers = tuple(f"model.layers.{layer}." for layer in range(held.first, held.end))
        names = [name for name in self._checkpoint.names() if name.startswith(layers)]
        if held.is_last:
            names += [NORM, self._matrix_name]
        sizes = {name: self._checkpoint.info(name).nbytes for name in names}
        self._checkpoint.reads = Reading(sizes, progress).read

    @property
    def spread(self) -> float:
        """The largest one of the linear layers that were built, see `kernels.interface.Linear`."""
        return max(self._linears.spread, self._head_linears.spread, self._spread)

    @property
    def few(self) -> bool:
        """Whether, on a device, passes of `sizes.FEW` rows take less time than more: those of some
        layers of the blocks."""
        return self._linears.few

    @property
    def remarks(self) -> list[str]:
        """What its user should know of weights that are held in another form than was asked for."""
        found = (self._linears.remark, self._head_linears.remark)
        return [remark for remark in found if remark is not None]

    def block(self, layer: int, index: int) -> Layer:
        """Layer `layer` of the model, the `index`th of the stage."""
        s, p = self._architecture, f"model.layers.{layer}."
        queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
        norms = {field: (name, s.width) for field, name in _NORMS[s.norms].items()}
        if s.qk_norm:
            whole = s.norms == "after"
            norms["q_norm"] = ("self_attn.q_norm", queries if whole else s.head_dim)
            norms["k_norm"] = ("self_attn.k_norm", keys if whole else s.head_dim)
        read = {
            field: self._norm(f"{p}{name}.weight", size) for field, (name, size) in norms.items()
        }
        look = LookBack(s, index, s.windows[layer])
        mixed = s.mixture is not None and s.mixture.layers[layer]
        block: Layer
        if self._quant in GROUPED and not mixed and not machine.has_own_kernels(self._device):
            linear = self._linears.grouped
            made = GroupedLayer(
                qkv=linear(*self._qkv(p)),
                out=linear(*self._out(p)),
                gate_up=linear(*self._gate_up(p)),
                down=linear(*self._down(p)),
                norms=read,
            )
            block = FusedBlock(s, made, look, s.rope_of[layer])
            self._spread = max(self._spread, block.spread)
        else:
            weights = BlockWeights(
                qkv=self._linears.fused(*self._qkv(p)),
                out=self._linears.fused(*self._out(p)),
                feed_forward=self._feed_forward(p, layer),
                **read,
            )
            block = Block(s, weights, look, s.rope_of[layer])
        self._nothing_left(p)
        self.release()
        return block

    # --- what linear layers are made of: names with their outputs, inputs, whether with a bias ----

    def _qkv(self, prefix: str) -> tuple[dict[str, int], int, bool]:
        s = self._architecture
        queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
        parts = {"qkv_proj": queries + 2 * keys}
        if not s.fused:
            parts = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
        named = {f"{prefix}self_attn.{name}": rows for name, rows in parts.items()}
        return named, s.width, s.qkv_bias

    def _out(self, prefix: str) -> tuple[dict[str, int], int, bool]:
        s = self._architecture
        return {f"{prefix}self_attn.o_proj": s.width}, s.heads * s.head_dim, s.out_bias

    def _gate_up(self, prefix: str) -> tuple[dict[str, int], int, bool]:
        s = self._architecture
        names = {"gate_up_proj": 2 * s.inner} if s.fused else dict.fromkeys(_GATE_UP, s.inner)
        return {f"{prefix}mlp.{name}": rows for name, rows in names.items()}, s.width, s.mlp_bias

    def _down(self, prefix: str) -> tuple[dict[str, int], int, bool]:
        s = self._architecture
        return {f"{prefix}mlp.down_proj": s.width}, s.inner, s.mlp_bias

    def _feed_forward(self, prefix: str, layer: int) -> FeedForward:
        s, read = self._architecture, self._linears.fused
        if s.mixture is not None and s.mixture.layers[layer]:
            return self._mixture(f"{prefix}mlp.", s.mixture)
        return Dense(read(*self._gate_up(prefix)), read(*self._down(prefix)), s.activation)

    def _mixture(self, prefix: str, mixture: Mixture) -> Experts:
        """One expert after the other is brought into its final form."""
        shape = (mixture.experts, self._architecture.width)
        gate = self._linears.tensor(f"{prefix}gate.weight", shape)
        return Experts(
            Router(self._router(gate), mixture.chosen, mixture.normalised),
            [self._expert(f"{prefix}experts.", mixture, n) for n in range(mixture.experts)],
            self._device,
        )

    def _router(self, weight: Tensor) -> Linear:
        made = self._gate(weight, None)
        self._spread = max(self._spread, made.spread)
        return made

    def _expert(self, prefix: str, mixture: Mixture, number: int) -> Dense:
        s, inner, own = self._architecture, mixture.inner, f"{prefix}{number}."
        stacked = (f"{prefix}gate_up_proj", f"{prefix}down_proj")
        if not self._checkpoint.has(stacked[0]):
            gate_up = self._linears.fused({own + name: inner for name in _GATE_UP}, s.width, False)
            down = self._linears.fused({f"{own}down_proj": s.width}, inner, False)
            return Dense(gate_up, down, s.activation)
        shapes = (2 * inner, s.width), (s.width, inner)
        gate_up, down = (
            self._linears.one_of(mixture.experts, number, name, shape)
            for name, shape in zip(stacked, shapes, strict=True)
        )
        return Dense(gate_up, down, s.activation)

    def _nothing_left(self, prefix: str) -> None:
        """Raise UserError for tensors with this prefix that were not read: what is not known may
        not be left out."""
        names = {name for name in self._checkpoint.names() if name.startswith(prefix)}
        self._refuse(names - self._linears.read)

    def _nothing_else(self) -> None:
        """Raise UserError for tensors that belong neither to a layer nor to an end of the model."""
        layers = tuple(f"model.layers.{layer}." for layer in range(self._architecture.layers))
        names = {name for name in self._checkpoint.names() if not name.startswith(layers)}
        self._refuse(names - {EMBEDDING, NORM, HEAD})

    def _refuse(self, names: set[str]) -> None:
        """But for the frequencies of rotary embeddings, which old checkpoints have."""
        odd = sorted(name for name in names if "rotary_emb" not in name)
        if odd:
            raise UserError(
                f"{self._checkpoint.folder} has tensors that a model of the family "
                f"{self._architecture.family} with this config.json does not have: "
                f"{', '.join(odd[:3])}{', ...' if odd[3:] else ''}: {WAY_OUT}"
            )

    def release(self) -> None:
        """Give back the memory of what was read, see `Checkpoint.release`, and of trials."""
        self._checkpoint.release()
        give_back()
        if self._device.type in ("cuda", "mps"):  # others have none to give back
            torch.get_device_module(self._device).empty_cache()

    def table(self) -> Tensor:
        """The embedding, all of it. On the CPU it stays in the mapped file if it is not quantised
        there."""
        table = self._embedding
        return table if self._device.type == "cpu" else table.to(self._device, self._dtype)

    @cached_property
    def _embedding(self) -> Tensor:
        return self._checkpoint.read(
            EMBEDDING, (self._architecture.vocab, self._architecture.width)
        )

    def embedding(self, device: torch.device | None = None) -> Embedding:
        """For rows that are wanted on `device`; None: where all else is. On the CPU it stays in the
        mapped file: only rows that are used get read."""
        s, device = self._architecture, device or self._device
        table = self._checkpoint.table(EMBEDDING, (s.vocab, s.width)).on(device, self._dtype)
        return Embedding(table, self._dtype, device, s.embedding_scale)

    def head(self) -> Head:
        norm = self._norm(NORM, self._architecture.width)
        shape = (self._architecture.vocab, self._architecture.width)
        matrix = self._head_linears.matrix(self._matrix_name, shape, self.matrix)
        return Head(self._architecture, norm, matrix, self._dtype)

    def matrix(self) -> Tensor:
        """The output matrix as it is stored."""
        if self._matrix_name == EMBEDDING:
            return self._embedding
        shape = (self._architecture.vocab, self._architecture.width)
        return self._checkpoint.read(self._matrix_name, shape)

    @property
    def _matrix_name(self) -> str:
        return self._checkpoint.head(self._architecture.tied)

    def _norm(self, name: str, size: int) -> Tensor:
        """In float32 where a norm is multiplied with its weight before it is rounded."""
        s = self._architecture
        weight = self._checkpoint.read(name, (size,))
        self._linears.read.add(name)
        if s.norm_offset:
            weight = weight.float() + s.norm_offset
        dtype = torch.float32 if s.wide_norm else self._dtype
        return in_dtype(name, weight, self._device, dtype).clone()
