"""The rotary embedding of a GGUF file, as the `rope_parameters` of a `config.json`.

What the keys mean is what llama.cpp does with them (`llama_hparams`, `llama_context` and
`ggml_rope_yarn` there):

* A factor without a type is linear scaling.
* `rope_freqs.weight` divides the frequencies, one by one. Converters write the scaling of Llama 3
  in this way.
* YaRN: cosines and sines are multiplied with `0.1 ln(factor) + 1` (the default of transformers) and
  with `attn_factor`.
* `rope_factors_long.weight` and `_short` are those of longrope (Phi-3).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gardener.errors import UserError
from gardener.model.checkpoint.gguf_keys import Keys

Factors = Mapping[str, Sequence[float]]
"""The tensors that belong here, by their name without `.weight`."""


def rope_parameters(keys: Keys, factors: Factors, context: int, rotated: int) -> dict[str, Any]:
    """`context`: the longest text; `rotated`: how many numbers of each head. Raises UserError for
    what cannot be said in a config."""
    theta = {"rope_theta": keys.positive("rope.freq_base", 10000.0)}
    for name, values in factors.items():
        _check_factors(name, values, rotated)
    if "rope_factors_long" in factors or "rope_factors_short" in factors:
        return _longrope(keys, factors, context) | theta
    kind, factor = _scaling(keys)
    if kind == "yarn":
        scaled = _yarn(keys, factor, context)
    else:
        keys.expect("rope.scaling.attn_factor", 1.0)
        keys.get("rope.scaling.original_context_length", int, context)  # counts for YaRN alone
        scaled = {"rope_type": "linear", "factor": factor} if kind == "linear" else {}
    divisors = list(factors.get("rope_freqs", ()))
    if any(each != 1.0 for each in divisors):
        if scaled:
            raise UserError(f"it has both rope_freqs.weight and {kind} scaling of the rotation")
        scaled = {"rope_type": "factors", "factors": divisors}
    return (scaled or {"rope_type": "default"}) | theta


def _check_factors(name: str, values: Sequence[float], rotated: int) -> None:
    """Raise UserError unless there is a factor for each frequency."""
    if len(values) != rotated // 2:
        raise UserError(
            f"its {name}.weight has {len(values)} numbers, not {rotated // 2}, half of the "
            f"{rotated} of a head that are rotated"
        )
    odd = [each for each in values if not 0 < each < math.inf]
    if odd:
        raise UserError(f"its {name}.weight has the number {odd[0]}, not above 0")


def _scaling(keys: Keys) -> tuple[str, float]:
    """The kind of scaling, and by how much: none where that is by 1 or 0."""
    names = ("rope.scaling.factor", "rope.scale_linear")  # the latter in old files
    factors = [keys.positive(name, 1.0) for name in names if keys.get(name, float, 0.0) != 0]
    factor = factors[0] if factors else 1.0
    kind = keys.get("rope.scaling.type", str, "linear")
    if kind not in ("none", "linear", "yarn"):
        raise UserError(f"its {keys.architecture}.rope.scaling.type is {kind}, without its factors")
    return ("none", 1.0) if factor == 1.0 else (kind, factor)


def _yarn(keys: Keys, factor: float, context: int) -> dict[str, Any]:
    for name, same in (("ext_factor", 1.0), ("attn_factor", 1.0), ("log_multiplier", 0.0)):
        keys.expect(f"rope.scaling.yarn_{name}", same)
    scale = keys.positive("rope.scaling.attn_factor", 1.0)
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": keys.get(
            "rope.scaling.original_context_length", int, context
        ),
        "attention_factor": scale * (0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0),
        "beta_fast": keys.positive("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": keys.positive("rope.scaling.yarn_beta_slow", 1.0),
    }


def _longrope(keys: Keys, factors: Factors, context: int) -> dict[str, Any]:
    keys.expect("rope.scaling.type", "longrope", "none")
    keys.expect("rope.scaling.factor", 1.0, 0.0)
    found = {f"{name}_factor": factors.get(f"rope_factors_{name}") for name in ("long", "short")}
    for name, values in found.items():
        if values is None:
            raise UserError(f"it has only one of the tensors rope_factors_long and _short: {name}")
    if "rope_freqs" in factors:
        raise UserError("it has both rope_freqs.weight and rope_factors_long.weight")
    return {
        "rope_type": "longrope",
        **{name: list(values or ()) for name, values in found.items()},
        "original_max_position_embeddings": keys.get(
            "rope.scaling.original_context_length", int, context
        ),
        "attention_factor": keys.positive("rope.scaling.attn_factor", 1.0),
    }
