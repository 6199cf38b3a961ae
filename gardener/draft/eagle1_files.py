"""EAGLE-1 from a file: `embed_tokens`, `fc` (with a bias unless its config says no) and `layers.0`
without an input norm. The target's head reads what it gives."""

from gardener.draft.eagle import Eagle1
from gardener.draft.eagle_reader import EagleReader
from gardener.model.kernels.linear import untried_linear

_NOT_HERE = ("norm_before_residual", "norm_before_fc", "fc_norm", "norm_output")


def eagle1(reader: EagleReader) -> Eagle1:
    """Raises UserError for a head that does not fit."""
    width, fields = reader.shape.width, reader.stated.fields
    if width != reader.target.width:
        raise reader.misfit("hidden_size", width, reader.target.width)
    if reader.stated.standard:
        raise reader.refusal(f"it has no {reader.layer}hidden_norm.weight, as an EAGLE-3 head has")
    for key in _NOT_HERE:
        if getattr(fields, key):
            raise reader.refusal(f"{key} is true, but EAGLE-1 has no such norm")
    bias = reader.take("fc.bias", (width,)) if fields.bias else None
    fc = untried_linear(reader.take("fc.weight", (width, 2 * width)), bias)
    block = reader.block(width)
    head = reader.linear(reader.targets_output())
    return Eagle1(reader.parts(block, fc, head, None, (reader.target.layers,)))
