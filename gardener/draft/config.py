"""What the `config.json` of a draft head says, checked before anything is made of it.

Heads come from strangers. Fields that are not named here are nobody's business; those that are have
their type and range, so that a wrong one is refused by name and not found out by a crash later on.
"""

import reprlib
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, convert
from msgspec.structs import FieldInfo, fields

from gardener.errors import UserError
from gardener.messages import MAX_TAPS
from gardener.stages.folders import read_json

Size: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Positive: TypeAlias = Annotated[float, Meta(gt=0, le=1e30)]  # so no infinity, and no NaN
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1e30)]
Layers: TypeAlias = Annotated[int, Meta(ge=1, le=1024)]  # some classes make a list of so many
Layer: TypeAlias = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Taps: TypeAlias = Annotated[tuple[Layer, ...], Meta(max_length=MAX_TAPS)]


class Rope(Struct, frozen=True):
    """Settings of the rotary embedding, old and new names. Which ones must be there, the kind of
    scaling decides."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: Positive | None = None
    factor: Positive | None = None
    low_freq_factor: Positive | None = None
    high_freq_factor: Positive | None = None
    original_max_position_embeddings: Size | None = None
    attention_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    mscale: Share | None = None
    mscale_all_dim: Share | None = None
    short_factor: tuple[Positive, ...] | None = None
    long_factor: tuple[Positive, ...] | None = None


class EagleConfig(Struct, frozen=True):
    """Where some trainers put the taps."""

    eagle_aux_hidden_state_layer_ids: Taps | None = None


class HeadConfig(Struct, frozen=True, kw_only=True):
    """The fields that matter. UNSET: the default of transformers, which may not be null."""

    hidden_size: Size | UnsetType = UNSET
    intermediate_size: Size | UnsetType = UNSET
    num_hidden_layers: Layers | UnsetType = UNSET
    num_attention_heads: Size | UnsetType = UNSET
    max_position_embeddings: Size | UnsetType = UNSET
    rms_norm_eps: Share | UnsetType = UNSET
    hidden_act: str | UnsetType = UNSET
    vocab_size: Size | UnsetType = UNSET
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    tie_word_embeddings: bool | None = None
    rope_theta: Positive | None = None
    rope_scaling: Rope | None = None
    rope_parameters: Rope | None = None
    target_hidden_size: Size | None = None
    draft_vocab_size: Size | None = None
    eagle_aux_hidden_state_layer_ids: Taps | None = None
    eagle_config: EagleConfig | None = None
    bias: bool | None = True
    fc_norm: bool | None = None
    norm_output: bool | None = None

    @classmethod
    def read(cls, file: Path) -> "HeadConfig":
        """Raises UserError, which names the first field that is wrong."""
        raw = read_json(file)
        known = [field for field in fields(cls) if field.name in raw]
        return cls(**{field.name: _checked(file, field, raw[field.name]) for field in known})

    @property
    def taps(self) -> tuple[int, ...] | None:
        """As stated; None where nothing is."""
        nested = self.eagle_config and self.eagle_config.eagle_aux_hidden_state_layer_ids
        return self.eagle_aux_hidden_state_layer_ids or nested or None


def _checked(file: Path, field: FieldInfo, value: Any) -> Any:
    try:
        return convert(value, field.type)
    except ValidationError as error:
        reason = str(error).replace("`", "").replace("Expected", "expected")
        raise UserError(
            f"{file}: {field.name} is {reprlib.repr(value)} ({reason}): mend the file, or give "
            "--head another head"
        ) from error
