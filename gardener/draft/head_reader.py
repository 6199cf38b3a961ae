"""Takes the checkpoint of a draft head apart, and knows what is left of it.

A head that does not fit the model, or has something that is not known here, is refused: one that is
nearly right would be slow for no visible reason.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from msgspec import UNSET, UnsetType
from torch import Tensor

from gardener.draft.head_config import WAY_OUT, StatedLayers
from gardener.draft.same_tokens import difference, tokens_of
from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.block import BlockWeights
from gardener.model.checkpoint.config import unreadable
from gardener.model.checkpoint.table import FloatTable, Table, near
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD, Checkpoint
from gardener.model.feed_forward import Dense
from gardener.model.kernels.interface import Linear, Make
from gardener.model.loader import settings
from gardener.model.rotary import Rotary

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_WHOLE = (torch.int64, torch.int32, torch.int16)
_OF_TRAINING = ("t2d", "verifier_lm_head.weight", "verifier_norm.weight")
"""Tensors that say nothing new, or are for training."""


class HeadReader:
    """A head whose layers are stated, for the target in the folder `model`. Raises UserError, as
    all do here.

    shape   of its layers
    target  what the model looks like
    device  where it computes, in this dtype
    """

    def __init__(
        self,
        stated: StatedLayers,
        model: Path,
        dtype: torch.dtype,
        device: torch.device,
        make: Make,
    ) -> None:
        self._folder, self._model = stated.folder, model
        self.dtype, self.device, self._make = dtype, device, make
        self.shape, self.target = stated.shape, Architecture.read(model)
        self._file, self._target_file = Checkpoint(self._folder), Checkpoint(model)
        names = (name.removeprefix("model.") for name in self._file.names())
        self._names = {name for name in names if "rotary_emb" not in name}
        self._left = self._names.difference(_OF_TRAINING)
        heads, groups = self.shape.heads, self.shape.kv_heads
        if heads % groups:
            raise self.refusal(
                f"num_attention_heads is {heads}, no multiple of num_key_value_heads, {groups}"
            )

    def has(self, name: str) -> bool:
        """Whether the file has this tensor."""
        return name in self._names

    def check_tokens(self, vocab: int | UnsetType) -> None:
        """`vocab`: of the target, as the head's config says."""
        if vocab is not UNSET and vocab != self.target.vocab:
            raise self.misfit("vocab_size", vocab, self.target.vocab)
        own = tokens_of(self._folder)  # most heads have none
        different = difference(own, tokens_of(self._model), self.target.vocab) if own else ""
        if different:
            raise self.refusal(f"its tokenizer has other tokens than the model's: {different}")

    def nothing_left(self, but: str = "") -> None:
        """Raise UserError for tensors that nobody has taken, `but` for those whose names begin
        so."""
        left = sorted(name for name in self._left if not (but and name.startswith(but)))
        if left:
            raise self.refusal(f"it has tensors that are not known: {', '.join(left)}")

    # --- parts -------------------------------------------------------------------------------

    def weights(
        self, layer: str, inputs: int, attention_norm: Tensor | None, head_norms: bool
    ) -> BlockWeights:
        """Those of a layer, whose q, k and v read so many numbers. `layer` is what its names begin
        with; `head_norms`: whether there must be norms over heads."""
        s = self.shape
        queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
        return BlockWeights(
            attention_norm=attention_norm,
            qkv=self.fused(f"{layer}self_attn", {"q": queries, "k": keys, "v": keys}, inputs),
            out=self.fused(f"{layer}self_attn", {"o": s.width}, queries),
            mlp_norm=self.norm(f"{layer}post_attention_layernorm.weight"),
            feed_forward=Dense(
                self.fused(f"{layer}mlp", {"gate": s.inner, "up": s.inner}, s.width),
                self.fused(f"{layer}mlp", {"down": s.width}, s.inner),
                s.activation,
            ),
            q_norm=self._head_norm(f"{layer}self_attn.q_norm.weight", head_norms),
            k_norm=self._head_norm(f"{layer}self_attn.k_norm.weight", head_norms),
        )

    def fused(self, part: str, rows: Mapping[str, int], inputs: int) -> Linear:
        """One linear layer out of several that read the same, with biases where there are any."""
        names = {f"{part}.{name}_proj": count for name, count in rows.items()}
        weights = [self.take(f"{name}.weight", (k, inputs)) for name, k in names.items()]
        biased = self.has(f"{next(iter(names))}.bias")
        biases = [self.take(f"{name}.bias", (k,)) for name, k in names.items() if biased]
        return self._make(torch.cat(weights), torch.cat(biases) if biases else None)

    def linear(self, weight: Tensor) -> Linear:
        """Of a matrix that is computed with as the head's own are."""
        return self._make(weight.to(self.device, self.dtype), None)

    def norm(self, name: str, size: int | None = None) -> Tensor:
        """The weight of a norm, which keeps no other tensor in memory."""
        return self.take(name, (self.shape.width if size is None else size,)).clone()

    def _head_norm(self, name: str, due: bool) -> Tensor | None:
        return self.norm(name, self.shape.head_dim) if due or self.has(name) else None

    def rotary(self) -> Rotary:
        """Tried out, since it trusts what the config says of its scaling."""
        try:
            rotary = Rotary(self.shape, self.dtype, self.device)
            sound = rotary.sound
        except Exception as error:  # settings that are missing or of odd lengths end in any of them
            raise unreadable(self._folder, error, WAY_OUT) from error
        if not sound:
            raise self.refusal(f"its rotary settings make no sense: {settings(self.shape)}")
        return rotary

    def table(self) -> Table:
        """The head's own embedding, else the target's; on the CPU it stays in the mapped file."""
        return near(self._table(), self.target.vocab, self.device, self.dtype)

    def _table(self) -> Table:
        width = self.shape.width
        if self.has("embed_tokens.weight"):
            return FloatTable(self.weight("embed_tokens.weight", (self.target.vocab, width)))
        if width != self.target.width:
            raise self.refusal("it has no embed_tokens, and the model's are of another width")
        return self._target_file.table(EMBEDDING, (self.target.vocab, width))

    # --- what its logits stand for -----------------------------------------------------------

    def tokens(self, count: int | None) -> Tensor | None:
        """The target's token of each of `count` logits (None: of as many as the target has); None
        where all of them are there in order."""
        vocab = self.target.vocab
        count = count or vocab
        if not self.has("d2t"):
            if count != vocab:
                raise self.refusal(f"draft_vocab_size is {count}, but there is no d2t")
            return None
        offsets = self._raw("d2t", (count,))
        if offsets.dtype not in _WHOLE:
            raise self.refusal(f"d2t holds {_name(offsets.dtype)}, not whole numbers")
        return self._mapped(offsets.long(), vocab).to(self.device)

    def _mapped(self, offsets: Tensor, vocab: int) -> Tensor:
        """Draft token i is the target's token i + d2t[i], and no other draft token is."""
        own = torch.arange(len(offsets))
        outside = (offsets < -own) | (offsets >= vocab - own)  # before a sum could overflow
        if outside.any():
            i = int(outside.nonzero()[0])
            offset = int(offsets[i])
            raise self.refusal(
                f"d2t[{i}] is {offset}, which makes draft token {i} the model's token "
                f"{i + offset}, and that has tokens 0 to {vocab - 1}"
            )
        tokens = offsets + own
        times = tokens.bincount(minlength=vocab)
        if times.max() > 1:
            token = int((times > 1).nonzero()[0])
            first, second = (int(i) for i in (tokens == token).nonzero()[:2])
            raise self.refusal(
                f"d2t makes two draft tokens, {first} and {second}, the model's token {token}"
            )
        return tokens

    def output(self, tokens: Tensor | None, must: bool) -> Linear:
        """Its own output matrix, else the target's at these tokens. `must`: whether it has to have
        one."""
        width, target = self.shape.width, self.target
        if self.has("lm_head.weight") or must:
            count = target.vocab if tokens is None else len(tokens)
            return self.linear(self.take("lm_head.weight", (count, width)))
        if width != target.width:
            raise self.refusal(
                f"it has no lm_head, and hidden_size {width} is not the model's {target.width}, "
                "whose head it could use"
            )
        matrix = self.targets_output()
        return self.linear(matrix if tokens is None else matrix[tokens.cpu()])

    def targets_output(self) -> Tensor:
        """The target's output matrix, as it is stored."""
        name = self._target_file.head(self.target.tied)
        return self._target_file.read(name, (self.target.vocab, self.target.width))

    # --- reading and refusing ----------------------------------------------------------------

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A weight, as it is computed with."""
        tensor = self.weight(name, shape).to(self.device, self.dtype)
        if not tensor.isfinite().all():
            raise self.refusal(
                f"{name} holds values that are no finite numbers in {_name(self.dtype)}"
            )
        return tensor

    def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """As it is stored: integers and 8-bit floats would need scales, which are not read."""
        tensor = self._raw(name, shape)
        if tensor.dtype not in _FLOATS:
            floats = ", ".join(map(_name, _FLOATS))
            raise self.refusal(f"{name} holds {_name(tensor.dtype)}, not one of {floats}")
        return tensor

    def _raw(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor as it is stored; it is not left any more."""
        self._left.discard(name)
        return self._file.raw(name if name == HEAD else f"model.{name}", shape)

    def misfit(self, key: str, ours: int, theirs: int) -> UserError:
        return self.refusal(f"{key} is {ours}, the model's is {theirs}")

    def refusal(self, why: str) -> UserError:
        return UserError(
            f"the head in {self._folder} does not fit the model in {self._model}: {why}; give "
            "--head one that was trained for this model"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
