"""How long a text may be that a model was made for.

`max_position_embeddings` says it, but not where a scaled rotary embedding stretches it. What that
is then is a convention, which vLLM's `_get_and_verify_max_len` states: linear and dynamic scaling
keep the length that the model was trained for in that field, and reach `factor` times as far
(Vicuna-16k, LongChat); YaRN reaches `factor` times as far as `original_max_position_embeddings`
(Qwen2.5 as its authors tell people to run it); for llama3 and longrope, and in Gemma 3, the field
holds the whole length already.
"""

from collections.abc import Mapping
from typing import Any

from gardener.protocol.room import MOST_CONTEXT

_STRETCHED = ("linear", "dynamic", "yarn")
"""Kinds of scaling that reach beyond the field."""

_WHOLE = ("gemma3", "gemma3_text")
"""Families in which the field is the whole length whatever the scaling."""


def context_length(family: str, rope: Mapping[str, Any], trained: int) -> int:
    """Most tokens of prompt and answer together, at most `MOST_CONTEXT`.

    family   the `model_type`
    rope     `rope_parameters`, as transformers names its keys
    trained  `max_position_embeddings`
    """
    kind, factor = rope.get("rope_type", "default"), rope.get("factor")
    length = float(trained)
    if kind in _STRETCHED and factor and family not in _WHOLE:
        if kind == "yarn":
            length = rope.get("original_max_position_embeddings") or trained
        length *= factor
    return int(min(max(length, 1.0), MOST_CONTEXT))
