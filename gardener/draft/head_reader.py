"""Takes the checkpoint of a draft head apart, and knows what is left of it.

A head that does not fit the model, or has something that is not known here, is refused: one that is
nearly right would be slow for no visible reason.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from msgspec import UNSET
from torch import Tensor

from gardener.draft.eagle import Borrowed
from gardener.draft.eagle_config import INDUCTION, WAY_OUT, read_stated
from gardener.draft.same_tokens import difference, tokens_of
from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.config import unreadable
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD, Checkpoint
from gardener.model.kernels.interface import Linear, Make
from gardener.model.llama import Block, BlockWeights
from gardener.model.rotary import Rotary

_LAYERS = ("midlayer.", "layers.0.")
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_OF_TRAINING = ("t2d", "verifier_lm_head.weight", "verifier_norm.weight")
"""Tensors that say nothing new, or are for training."""


class HeadReader:
    """The head in `folder`, for the target in the folder `model`. Raises UserError, as all do here.

    stated     what its config says
    shape      of its layer
    target     what the model looks like
    induction  how many of the shape's key heads are for induction
    """

    def __init__(
        self, folder: Path, model: Path, dtype: torch.dtype, device: torch.device, make: Make
    ) -> None:
        self._folder, self._model, self._dtype, self._device = folder, model, dtype, device
        self._make = make
        self.stated = read_stated(folder)
        self.induction = self.stated.fields.induction_key_value_heads or 0
        self.shape, self.target = self.stated.shape, Architecture.read(model)
        self._file, self._target_file = Checkpoint(folder), Checkpoint(model)
        names = (name.removeprefix("model.") for name in self._file.names())
        self._left = {name for name in names if "rotary_emb" not in name}
        self._left.difference_update(_OF_TRAINING)
        self.layer = next((p for p in _LAYERS if f"{p}mlp.up_proj.weight" in self._left), "")
        if not self.layer:
            raise self.refusal("it has no layer named midlayer or layers.0")
        self._check()
        self.shape = self._with_induction()

    @property
    def is_eagle3(self) -> bool:
        """Its layer has a norm for features."""
        return self.has(f"{self.layer}hidden_norm.weight")

    def has(self, name: str) -> bool:
        """Whether this tensor is there, and not taken yet."""
        return name in self._left

    def _with_induction(self) -> Architecture:
        heads, groups = self.shape.heads, self.shape.kv_heads
        more = self.induction
        return replace(self.shape, heads=heads + more * (heads // groups), kv_heads=groups + more)

    # --- parts -------------------------------------------------------------------------------

    def parts(
        self, block: Block, fc: Linear, head: Linear, tokens: Tensor | None, taps: tuple[int, ...]
    ) -> Borrowed:
        """All of these, and what every head has. Nothing may be left of the checkpoint then."""
        table, rotary = self._table(), self._rotary()
        tokens = None if tokens is None else tokens.to(self._device)
        if self._left:
            raise self.refusal(
                f"it has tensors that are not known: {', '.join(sorted(self._left))}"
            )
        return Borrowed(
            self.shape, block, fc, table, head, tokens, taps, rotary, self._dtype, self._device
        )

    def block(self, inputs: int) -> Block:
        """Its layer, whose q, k and v read so many numbers."""
        s, p = self.shape, self.layer
        queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
        biased = self.stated.fields.attention_bias and f"{p}self_attn.q_proj.bias"
        if biased and not self.has(biased):
            raise self.refusal(f"attention_bias is true, but there is no {biased}")
        weights = BlockWeights(
            attention_norm=None,
            qkv=self._fused("self_attn", {"q": queries, "k": keys, "v": keys}, inputs),
            out=self._fused("self_attn", {"o": s.width}, queries),
            mlp_norm=self.norm(f"{p}post_attention_layernorm.weight"),
            gate_up=self._fused("mlp", {"gate": s.inner, "up": s.inner}, s.width),
            down=self._fused("mlp", {"down": s.width}, s.inner),
            q_norm=self._head_norm("q_norm"),
            k_norm=self._head_norm("k_norm"),
        )
        return Block(s, weights, 0, None, batch_invariant=False)

    def linear(self, weight: Tensor) -> Linear:
        """Of a matrix that is computed with as the head's own are."""
        return self._make(weight.to(self._device, self._dtype), None)

    def borrowed_matrix(self) -> Tensor:
        """The target's output matrix, as it is stored."""
        name = EMBEDDING if self.target.tied else HEAD
        return self._target_file.read(name, (self.target.vocab, self.target.width))

    def norm(self, name: str, size: int | None = None) -> Tensor:
        """The weight of a norm, which keeps no other tensor in memory."""
        return self.take(name, (self.shape.width if size is None else size,)).clone()

    def _head_norm(self, name: str) -> Tensor | None:
        """Over each head. A flat head may be a Llama's layer for a target that has such norms."""
        full = f"{self.layer}self_attn.{name}.weight"
        due = self.has(full) or (self.stated.standard and self.shape.qk_norm)
        return self.norm(full, self.shape.head_dim) if due else None

    def _fused(self, part: str, rows: Mapping[str, int], inputs: int) -> Linear:
        """One linear layer out of several that read the same, with biases where there are any."""
        names = {f"{self.layer}{part}.{name}_proj": count for name, count in rows.items()}
        weights = [self.take(f"{name}.weight", (k, inputs)) for name, k in names.items()]
        biased = self.has(f"{next(iter(names))}.bias")
        biases = [self.take(f"{name}.bias", (k,)) for name, k in names.items() if biased]
        return self._make(torch.cat(weights), torch.cat(biases) if biases else None)

    def _rotary(self) -> Rotary:
        """Tried out, since it trusts what the config says of its scaling."""
        try:
            rotary = Rotary(self.shape, self._dtype, self._device)
            sound = rotary.sound
        except Exception as error:  # settings that are missing or of odd lengths end in any of them
            raise unreadable(self._folder, error, WAY_OUT) from error
        if not sound:
            raise self.refusal(f"its rotary settings make no sense: {self.shape.rope}")
        return rotary

    def _table(self) -> Tensor:
        """The head's own embedding, else the target's, which stays in the mapped file."""
        width = self.shape.width
        if self.has("embed_tokens.weight"):
            return self._weight("embed_tokens.weight", (self.target.vocab, width))
        if width != self.target.width:
            raise self.refusal("it has no embed_tokens, and the model's are of another width")
        return self._target_file.read(EMBEDDING, (self.target.vocab, width))

    # --- reading and refusing ----------------------------------------------------------------

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A weight, as it is computed with."""
        tensor = self._weight(name, shape).to(self._device, self._dtype)
        if not tensor.isfinite().all():
            raise self.refusal(
                f"{name} holds values that are no finite numbers in {type_name(self._dtype)}"
            )
        return tensor

    def raw(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor as it is stored; it is not left any more."""
        self._left.discard(name)
        return self._file.read(name if name == HEAD else f"model.{name}", shape)

    def misfit(self, key: str, ours: int, theirs: int) -> UserError:
        return self.refusal(f"{key} is {ours}, the model's is {theirs}")

    def refusal(self, why: str) -> UserError:
        return UserError(
            f"the head in {self._folder} does not fit the model in {self._model}: {why}; give "
            "--head one that was trained for this model"
        )

    def _weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """As it is stored: integers and 8-bit floats would need scales, which are not read."""
        tensor = self.raw(name, shape)
        if tensor.dtype not in _FLOATS:
            floats = ", ".join(map(type_name, _FLOATS))
            raise self.refusal(f"{name} holds {type_name(tensor.dtype)}, not one of {floats}")
        return tensor

    def _check(self) -> None:
        """What config and tokenizer say, before any weight is read."""
        vocab = self.stated.fields.vocab_size
        if vocab is not UNSET and vocab != self.target.vocab:
            raise self.misfit("vocab_size", vocab, self.target.vocab)
        heads, groups = self.shape.heads, self.shape.kv_heads
        if heads % groups:
            raise self.refusal(
                f"num_attention_heads is {heads}, no multiple of num_key_value_heads, {groups}"
            )
        if self.induction and not self.is_eagle3:
            raise self.refusal(f"{INDUCTION} is {self.induction}, but EAGLE-1 has no such heads")
        if self.shape.layers != 1:
            raise self.refusal(f"num_hidden_layers is {self.shape.layers}, only 1 is supported")
        own, theirs = tokens_of(self._folder), tokens_of(self._model)
        different = difference(own, theirs, self.target.vocab)
        if different:
            raise self.refusal(f"its tokenizer has other tokens than the model's: {different}")


def type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
