"""EAGLE-3 from a file: `fc` over several taps, `midlayer` or `layers.0` whose q, k and v read two
widths, norms, and an `lm_head` over a draft vocabulary, which `d2t` maps to the target's.

Our own heads are EAGLE-3 whose `lm_head` is left out: it is the target's, at the tokens of `d2t`.
They may have induction heads, which `induction_key_value_heads` counts: a key of ours, for no
published head has them. Heads in the form of `speculators` bring `lm_head` and `embed_tokens`.
"""

import torch
from torch import Tensor

from gardener.draft.eagle import Eagle3, Norms
from gardener.draft.eagle_config import TAPS
from gardener.draft.head_reader import HeadReader, type_name
from gardener.model.kernels.interface import Linear
from gardener.model.kernels.linear import linear

_WHOLE = (torch.int64, torch.int32, torch.int16)


def eagle3(reader: HeadReader) -> Eagle3:
    """Raises UserError for a head that does not fit."""
    width, theirs = reader.shape.width, reader.target.width
    taps = _taps(reader)
    stated = reader.stated.fields.target_hidden_size
    if (stated or width) != theirs:
        key = "target_hidden_size" if stated else "hidden_size"
        raise reader.misfit(key, stated or width, theirs)
    fc = linear(reader.take("fc.weight", (width, len(taps) * theirs)), None)
    block = reader.block(2 * width)
    norms = _norms(reader, len(taps))
    tokens = _tokens(reader)
    head = _head(reader, tokens)
    parts = reader.parts(block, fc, head, tokens, taps)
    return Eagle3(parts, norms, reader.induction)


def _taps(reader: HeadReader) -> tuple[int, ...]:
    layers, stated = reader.target.layers, reader.stated
    taps = stated.taps(layers)
    if list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] <= layers:
        raise reader.refusal(
            f"{TAPS} is {list(taps)}, but must ascend within a model of {layers} layers"
        )
    if taps[-1] == layers and not stated.ours:
        raise reader.refusal(
            f"{TAPS} asks for what the last layer, {layers}, gives before the last norm, which the "
            "ring hands out after it"
        )
    return taps


def _norms(reader: HeadReader, taps: int) -> Norms:
    p, fields, theirs = reader.layer, reader.stated.fields, reader.target.width
    before_fc = reader.stated.norm_before_fc
    if before_fc and fields.fc_norm:
        raise reader.refusal("norm_before_fc and fc_norm are both true, and only one can be")
    each = [reader.norm(f"fc_norm.{k}.weight", theirs) for k in range(taps) if fields.fc_norm]
    return Norms(
        input=reader.norm(f"{p}input_layernorm.weight"),
        hidden=reader.norm(f"{p}hidden_norm.weight"),
        last=reader.norm("norm.weight"),
        whole=reader.norm("input_norm.weight", taps * theirs) if before_fc else None,
        each=torch.stack(each) if each else None,
        before_residual=bool(fields.norm_before_residual),
        output=bool(fields.norm_output),
    )


def _tokens(reader: HeadReader) -> Tensor | None:
    """The target's token of each logit; None where all of them are there in order."""
    vocab = reader.target.vocab
    count = reader.stated.fields.draft_vocab_size or vocab
    if not reader.has("d2t"):
        if count != vocab:
            raise reader.refusal(f"draft_vocab_size is {count}, but there is no d2t")
        return None
    offsets = reader.raw("d2t", (count,))
    if offsets.dtype not in _WHOLE:
        raise reader.refusal(f"d2t holds {type_name(offsets.dtype)}, not whole numbers")
    return _mapped(reader, offsets.long(), vocab)


def _mapped(reader: HeadReader, offsets: Tensor, vocab: int) -> Tensor:
    """Draft token i is the target's token i + d2t[i], and no other draft token is."""
    own = torch.arange(len(offsets))
    outside = (offsets < -own) | (offsets >= vocab - own)  # before a sum could overflow
    if outside.any():
        i = int(outside.nonzero()[0])
        offset = int(offsets[i])
        raise reader.refusal(
            f"d2t[{i}] is {offset}, which makes draft token {i} the model's token "
            f"{i + offset}, and that has tokens 0 to {vocab - 1}"
        )
    tokens = offsets + own
    times = tokens.bincount(minlength=vocab)
    if times.max() > 1:
        token = int((times > 1).nonzero()[0])
        first, second = (int(i) for i in (tokens == token).nonzero()[:2])
        raise reader.refusal(
            f"d2t makes two draft tokens, {first} and {second}, the model's token {token}"
        )
    return tokens


def _head(reader: HeadReader, tokens: Tensor | None) -> Linear:
    """Its own output matrix, else the target's at its tokens."""
    width, theirs = reader.shape.width, reader.target
    if reader.has("lm_head.weight") or reader.stated.standard:
        count = theirs.vocab if tokens is None else len(tokens)
        return reader.linear(reader.take("lm_head.weight", (count, width)))
    if width != theirs.width:
        raise reader.refusal(
            f"it has no lm_head, and hidden_size {width} is not the model's "
            f"{theirs.width}, whose head it could use"
        )
    matrix = reader.borrowed_matrix()
    return reader.linear(matrix if tokens is None else matrix[tokens])
