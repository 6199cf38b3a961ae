"""EAGLE-3 from a file: `fc` over several taps, `midlayer` or `layers.0` whose q, k and v read two
widths, norms, and an `lm_head` over a draft vocabulary, which `d2t` maps to the target's.

Our own heads are EAGLE-3 whose `lm_head` is left out: it is the target's, at the tokens of `d2t`.
They may have induction heads, which `induction_key_value_heads` counts: a key of ours, for no
published head has them. Heads in the form of `speculators` bring `lm_head` and `embed_tokens`.
"""

import torch

from gardener.draft.eagle import Eagle3, Norms
from gardener.draft.eagle_config import TAPS
from gardener.draft.eagle_reader import EagleReader
from gardener.model.kernels.linear import untried_linear


def eagle3(reader: EagleReader) -> Eagle3:
    """Raises UserError for a head that does not fit."""
    width, theirs = reader.shape.width, reader.target.width
    taps = _taps(reader)
    stated = reader.stated.fields.target_hidden_size
    if (stated or width) != theirs:
        key = "target_hidden_size" if stated else "hidden_size"
        raise reader.misfit(key, stated or width, theirs)
    fc = untried_linear(reader.take("fc.weight", (width, len(taps) * theirs)), None)
    block = reader.block(2 * width)
    norms = _norms(reader, len(taps))
    tokens = reader.tokens(reader.stated.fields.draft_vocab_size)
    head = reader.output(tokens, must=reader.stated.standard)
    parts = reader.parts(block, fc, head, tokens, taps)
    return Eagle3(parts, norms, reader.induction)


def _taps(reader: EagleReader) -> tuple[int, ...]:
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


def _norms(reader: EagleReader, taps: int) -> Norms:
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
