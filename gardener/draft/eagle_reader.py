"""Takes the checkpoint of an EAGLE head apart: one layer, named `midlayer` or `layers.0`."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gardener.draft.eagle import Borrowed
from gardener.draft.eagle_config import INDUCTION, read_stated
from gardener.draft.head_reader import HeadReader
from gardener.model.architecture import Architecture
from gardener.model.block import Block
from gardener.model.kernels.interface import Linear, Make
from gardener.model.look_back import LookBack

_LAYERS = ("midlayer.", "layers.0.")


class EagleReader(HeadReader):
    """The head in `folder`.

    stated     what its config says
    layer      what the names of its layer begin with
    induction  how many of the shape's key heads are for induction
    """

    def __init__(
        self, folder: Path, model: Path, dtype: torch.dtype, device: torch.device, make: Make
    ) -> None:
        self.stated = read_stated(folder)
        super().__init__(self.stated, model, dtype, device, make)
        self.induction = self.stated.fields.induction_key_value_heads or 0
        self.layer = next((p for p in _LAYERS if self.has(f"{p}mlp.up_proj.weight")), "")
        if not self.layer:
            raise self.refusal("it has no layer named midlayer or layers.0")
        self._check()
        self.shape = self._with_induction()

    @property
    def is_eagle3(self) -> bool:
        """Its layer has a norm for features."""
        return self.has(f"{self.layer}hidden_norm.weight")

    def block(self, inputs: int) -> Block:
        """Its layer, whose q, k and v read so many numbers."""
        # A flat head may be a Llama's layer for a target that has norms over heads.
        head_norms = self.stated.standard and self.shape.qk_norm
        weights = self.weights(self.layer, inputs, None, head_norms)
        return Block(self.shape, weights, LookBack(self.shape, 0))

    def parts(
        self, block: Block, fc: Linear, head: Linear, tokens: Tensor | None, taps: tuple[int, ...]
    ) -> Borrowed:
        """All of these, and what every head has. Nothing may be left of the checkpoint then."""
        table, rotary = self.table(), self.rotary()
        self.nothing_left()
        return Borrowed(
            self.shape, block, fc, table, head, tokens, taps, rotary, self.dtype, self.device
        )

    def _check(self) -> None:
        """What config and tokenizer say, before any weight is read."""
        fields = self.stated.fields
        if self.induction and not self.is_eagle3:
            raise self.refusal(f"{INDUCTION} is {self.induction}, but EAGLE-1 has no such heads")
        if self.shape.layers != 1:
            raise self.refusal(f"num_hidden_layers is {self.shape.layers}, only 1 is supported")
        bias = f"{self.layer}self_attn.q_proj.bias"
        if fields.attention_bias and not self.has(bias):
            raise self.refusal(f"attention_bias is true, but there is no {bias}")
        self.check_tokens(fields.vocab_size)

    def _with_induction(self) -> Architecture:
        heads, groups = self.shape.heads, self.shape.kv_heads
        more = self.induction
        return replace(self.shape, heads=heads + more * (heads // groups), kv_heads=groups + more)
