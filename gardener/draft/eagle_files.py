"""Draft heads from files: EAGLE-1 and EAGLE-3 as they are published, and our own.

The tensors tell which of the two it is. EAGLE-1 has `embed_tokens`, `fc` (with a bias unless its
config says no) and `layers.0` without an input norm; the target's head reads what it gives. EAGLE-3
has `fc` over several taps, `midlayer` or `layers.0` whose q, k and v read two widths, norms, and an
`lm_head` over a draft vocabulary, which `d2t` maps to the target's. Our own heads are EAGLE-3 whose
`lm_head` is left out: it is the target's, at the tokens of `d2t`. They may have induction heads,
which `induction_key_value_heads` counts: a key of ours, for no published head has them.

A head that does not fit the model, or has something that is not known here, is refused: one that is
nearly right would be slow for no visible reason.
"""

import hashlib
import json
import reprlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from msgspec import UNSET
from torch import Tensor

from gardener.draft.eagle import Borrowed, Eagle1, Eagle3
from gardener.draft.eagle_config import HEADS_OWN, WAY_OUT, HeadConfig
from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.config import transformers_config, unreadable
from gardener.model.checkpoint.folders import read_json
from gardener.model.checkpoint.plain_config import plain_config
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD, Checkpoint
from gardener.model.kernels.interface import Linear, Make
from gardener.model.kernels.linear import linear
from gardener.model.llama import Block, BlockWeights
from gardener.model.rotary import Rotary
from gardener.model.tensors import dtype_of

TAPS = "eagle_aux_hidden_state_layer_ids"
"""Key in a head's config: its taps, see `messages.Open`."""

INDUCTION = "induction_key_value_heads"
"""Another: key heads for induction, beyond the others, and with as many query heads each."""

_LAYERS = ("midlayer.", "layers.0.")
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_WHOLE = (torch.int64, torch.int32, torch.int16)
_ATTENTION = ("q_proj", "k_proj", "v_proj")


def load_eagle(
    folder: Path, model: Path, *, dtype: str, device: str, make: Make = linear
) -> Eagle1 | Eagle3:
    """The head in `folder`, for the target in the folder `model`.

    make: for its linear layers, but for `fc`, which reads things of very different size at once.

    Raises UserError.
    """
    reader = _Reader(folder, model, dtype_of(dtype), torch.device(device), make)
    with torch.inference_mode():
        return reader.eagle3() if reader.has("hidden_norm.weight") else reader.eagle1()


class _Reader:
    """Takes a checkpoint apart, and knows what is left of it."""

    def __init__(
        self, folder: Path, model: Path, dtype: torch.dtype, device: torch.device, make: Make
    ) -> None:
        self._folder, self._model, self._dtype, self._device = folder, model, dtype, device
        self._linear = make
        self._config = HeadConfig.read(folder / "config.json")
        self._induction = self._config.induction_key_value_heads or 0
        self._shape, self._target = _shape(folder), Architecture.read(model)
        self._file, self._target_file = Checkpoint(folder), Checkpoint(model)
        names = (name.removeprefix("model.") for name in self._file.names())
        self._left = {name for name in names if "rotary_emb" not in name}
        self._layer = next((p for p in _LAYERS if f"{p}mlp.up_proj.weight" in self._left), "")
        if not self._layer:
            raise self._refusal("it has no layer named midlayer or layers.0")
        self._check()
        self._shape = self._with_induction()

    def has(self, name: str) -> bool:
        """Whether the layer has this tensor."""
        return f"{self._layer}{name}" in self._left

    def _with_induction(self) -> Architecture:
        heads, groups = self._shape.heads, self._shape.kv_heads
        more = self._induction
        return replace(self._shape, heads=heads + more * (heads // groups), kv_heads=groups + more)

    # --- whole heads -------------------------------------------------------------------------

    def eagle1(self) -> Eagle1:
        """EAGLE-1: bias of `fc` as the config says, true by default."""
        width = self._shape.width
        if width != self._target.width:
            raise self._misfit("hidden_size", width, self._target.width)
        bias = self._take("fc.bias", (width,)) if self._config.bias else None
        fc = linear(self._take("fc.weight", (width, 2 * width)), bias)
        block = self._block(width)
        table = self._table(width)
        head = self._linear(self._borrowed_matrix().to(self._device, self._dtype), None)
        self._nothing_left()
        return Eagle1(self._parts(block, fc, table, head, None, (self._target.layers,)))

    def eagle3(self) -> Eagle3:
        """EAGLE-3, published or our own."""
        width, target = self._shape.width, self._target
        taps = self._taps()
        stated = self._config.target_hidden_size
        if (stated or width) != target.width:
            key = "target_hidden_size" if stated else "hidden_size"
            raise self._misfit(key, stated or width, target.width)
        fc = linear(self._take("fc.weight", (width, len(taps) * target.width)), None)
        block = self._block(2 * width)
        norms = [
            self._take(f"{self._layer}{name}.weight", (width,)).clone()
            for name in ("input_layernorm", "hidden_norm")
        ]
        norm = self._take("norm.weight", (width,)).clone()
        tokens = self._tokens()
        head = self._head3(width, tokens)
        table = self._table(width)
        self._nothing_left()
        parts = self._parts(block, fc, table, head, tokens, taps)
        return Eagle3(parts, norms[0], norms[1], norm, self._induction)

    def _parts(
        self,
        block: Block,
        fc: Linear,
        table: Tensor,
        head: Linear,
        tokens: Tensor | None,
        taps: tuple[int, ...],
    ) -> Borrowed:
        rotary = self._rotary()
        return Borrowed(
            self._shape, block, fc, table, head, tokens, taps, rotary, self._dtype, self._device
        )

    def _rotary(self) -> Rotary:
        """Tried out, since it trusts what the config says of its scaling."""
        try:
            rotary = Rotary(self._shape, self._dtype, self._device)
            sound = rotary.sound
        except Exception as error:  # settings that are missing or of odd lengths end in any of them
            raise unreadable(self._folder, error, WAY_OUT) from error
        if not sound:
            raise self._refusal(f"its rotary settings make no sense: {self._shape.rope}")
        return rotary

    # --- parts -------------------------------------------------------------------------------

    def _block(self, inputs: int) -> Block:
        s, p = self._shape, self._layer
        rows = dict(zip(_ATTENTION, (s.heads, s.kv_heads, s.kv_heads), strict=True))
        biased = self.has("self_attn.q_proj.bias")
        qkv = [
            self._take(f"{p}self_attn.{name}.weight", (count * s.head_dim, inputs))
            for name, count in rows.items()
        ]
        biases = [
            self._take(f"{p}self_attn.{name}.bias", (count * s.head_dim,))
            for name, count in rows.items()
            if biased
        ]
        gate_up = [
            self._take(f"{p}mlp.{name}.weight", (s.inner, s.width))
            for name in ("gate_proj", "up_proj")
        ]
        out = self._take(f"{p}self_attn.o_proj.weight", (s.width, s.heads * s.head_dim))
        weights = BlockWeights(
            attention_norm=None,
            qkv=self._linear(torch.cat(qkv), torch.cat(biases) if biases else None),
            out=self._linear(out, None),
            mlp_norm=self._take(f"{p}post_attention_layernorm.weight", (s.width,)).clone(),
            gate_up=self._linear(torch.cat(gate_up), None),
            down=self._linear(self._take(f"{p}mlp.down_proj.weight", (s.width, s.inner)), None),
        )
        return Block(s, weights, 0, None, batch_invariant=False)

    def _tokens(self) -> Tensor | None:
        """The target's token of each logit; None where all of them are there in order."""
        count, vocab = self._config.draft_vocab_size or self._target.vocab, self._target.vocab
        self._left.discard("t2d")
        if "d2t" not in self._left:
            if count != vocab:
                raise self._refusal(f"draft_vocab_size is {count}, but there is no d2t")
            return None
        offsets = self._raw("d2t", (count,))
        if offsets.dtype not in _WHOLE:
            raise self._refusal(f"d2t holds {_name(offsets.dtype)}, not whole numbers")
        tokens = self._mapped(offsets.long(), vocab)
        return tokens.to(self._device)

    def _mapped(self, offsets: Tensor, vocab: int) -> Tensor:
        """Draft token i is the target's token i + d2t[i], and no other draft token is."""
        own = torch.arange(len(offsets))
        outside = (offsets < -own) | (offsets >= vocab - own)  # before a sum could overflow
        if outside.any():
            i = int(outside.nonzero()[0])
            offset = int(offsets[i])
            raise self._refusal(
                f"d2t[{i}] is {offset}, which makes draft token {i} the model's token "
                f"{i + offset}, and that has tokens 0 to {vocab - 1}"
            )
        tokens = offsets + own
        times = tokens.bincount(minlength=vocab)
        if times.max() > 1:
            token = int((times > 1).nonzero()[0])
            first, second = (int(i) for i in (tokens == token).nonzero()[:2])
            raise self._refusal(
                f"d2t makes two draft tokens, {first} and {second}, the model's token {token}"
            )
        return tokens

    def _head3(self, width: int, tokens: Tensor | None) -> Linear:
        if "lm_head.weight" in self._left:
            count = self._target.vocab if tokens is None else len(tokens)
            return self._linear(self._take("lm_head.weight", (count, width)), None)
        if width != self._target.width:
            raise self._refusal(
                f"it has no lm_head, and hidden_size {width} is not the model's "
                f"{self._target.width}, whose head it could use"
            )
        matrix = self._borrowed_matrix()
        chosen = matrix if tokens is None else matrix[tokens.cpu()]
        return self._linear(chosen.to(self._device, self._dtype), None)

    def _table(self, width: int) -> Tensor:
        """The head's own embedding, else the target's, which stays in the mapped file."""
        if "embed_tokens.weight" in self._left:
            return self._weight("embed_tokens.weight", (self._target.vocab, width))
        if width != self._target.width:
            raise self._refusal("it has no embed_tokens, and the model's are of another width")
        return self._target_file.read(EMBEDDING, (self._target.vocab, width))

    def _borrowed_matrix(self) -> Tensor:
        name = self._target_file.head(self._target.tied)
        return self._target_file.read(name, (self._target.vocab, self._target.width))

    def _taps(self) -> tuple[int, ...]:
        layers = self._target.layers
        taps = self._config.taps or (2, layers // 2, layers - 3)
        if list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] <= layers:
            raise self._refusal(
                f"{TAPS} is {list(taps)}, but must ascend within a model of {layers} layers"
            )
        return taps

    # --- reading and refusing ----------------------------------------------------------------

    def _take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A weight, as it is computed with."""
        tensor = self._weight(name, shape).to(self._device, self._dtype)
        if not tensor.isfinite().all():
            raise self._refusal(
                f"{name} holds values that are no finite numbers in {_name(self._dtype)}"
            )
        return tensor

    def _weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """As it is stored: integers and 8-bit floats would need scales, which are not read."""
        tensor = self._raw(name, shape)
        if tensor.dtype not in _FLOATS:
            raise self._refusal(
                f"{name} holds {_name(tensor.dtype)}, not one of {', '.join(map(_name, _FLOATS))}"
            )
        return tensor

    def _raw(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor as it is stored; it is not left any more."""
        self._left.discard(name)
        return self._file.read(name if name == HEAD else f"model.{name}", shape)

    def _check(self) -> None:
        """What config and tokenizer say, before any weight is read."""
        vocab = self._config.vocab_size
        if vocab is not UNSET and vocab != self._target.vocab:
            raise self._misfit("vocab_size", vocab, self._target.vocab)
        heads, groups = self._shape.heads, self._shape.kv_heads
        if heads % groups:
            raise self._refusal(
                f"num_attention_heads is {heads}, no multiple of num_key_value_heads, {groups}"
            )
        if self._induction and not self.has("hidden_norm.weight"):
            raise self._refusal(f"{INDUCTION} is {self._induction}, but EAGLE-1 has no such heads")
        if self._shape.layers != 1:
            raise self._refusal(f"num_hidden_layers is {self._shape.layers}, only 1 is supported")
        for key in ("fc_norm", "norm_output"):
            if getattr(self._config, key):
                raise self._refusal(f"{key} is not supported")
        own, theirs = (_tokenizer(folder) for folder in (self._folder, self._model))
        if own and theirs and own != theirs:
            raise self._refusal("its tokenizer.json has another vocabulary than the model's")

    def _nothing_left(self) -> None:
        if self._left:
            raise self._refusal(
                f"it has tensors that are not known: {', '.join(sorted(self._left))}"
            )

    def _misfit(self, key: str, ours: int, theirs: int) -> UserError:
        return self._refusal(f"{key} is {ours}, the model's is {theirs}")

    def _refusal(self, why: str) -> UserError:
        return UserError(
            f"the head in {self._folder} does not fit the model in {self._model}: {why}; give "
            "--head one that was trained for this model"
        )


def _shape(folder: Path) -> Architecture:
    """The layer's sizes. The classes that heads name are their own, so these are not looked at."""
    raw = read_json(folder / "config.json")
    whole = partial(transformers_config, folder, WAY_OUT)
    known = plain_config({key: raw[key] for key in raw if key not in HEADS_OWN}) or whole()
    try:
        return Architecture.from_config(known, whole)
    except Exception as error:  # it may be the config of anything
        raise unreadable(folder, error, WAY_OUT) from error


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _tokenizer(folder: Path) -> str | None:
    """A hash of the vocabulary; None where there is no tokenizer."""
    file = folder / "tokenizer.json"
    if not file.exists():
        return None
    model = read_json(file).get("model") or {}
    if not isinstance(model, dict):
        raise UserError(
            f"{file}: model is {reprlib.repr(model)}, not an object: mend the file, or take it away"
        )
    return hashlib.sha256(json.dumps(model.get("vocab"), sort_keys=True).encode()).hexdigest()
