"""What a `config.json` says, checked before anything is made of it.

Models and draft heads come from strangers. Fields that are not named here are ignored. Those that
are have a type and a range, so that a wrong one is refused by name, not found out by a crash later
on. Code that a folder brings is never run, and nobody is asked whether it may be.
"""

import reprlib
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, convert
from msgspec.structs import FieldInfo, fields

from gardener.errors import UserError
from gardener.model.checkpoint.folders import read_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Size: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=65536)]
Positive: TypeAlias = Annotated[float, Meta(gt=0, le=1e30)]  # so no infinity, and no NaN
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1e30)]
Layers: TypeAlias = Annotated[int, Meta(ge=1, le=1024)]  # some classes make a list of that length


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
    partial_rotary_factor: Positive | None = None
    short_factor: tuple[Positive, ...] | None = None
    long_factor: tuple[Positive, ...] | None = None


class LayerConfig(Struct, frozen=True, kw_only=True):
    """The fields that matter in any model. UNSET: the default of transformers, which may not be
    null. `configuration_files` would make it read another file, which nobody has checked."""

    configuration_files: None = None
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


class Quantization(Struct, frozen=True):
    """How the weights of a checkpoint are stored."""

    quant_method: str | None = None


class Part(Struct, frozen=True):
    """What `split` notes in the folder of a stage; the holder's, stage 0, has no layers."""

    stage: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    fingerprint: str
    first: Annotated[int, Meta(ge=0, le=1024)] = 0
    end: Annotated[int, Meta(ge=0, le=1024)] = 0
    layers: Annotated[int, Meta(ge=0, le=1024)] = 0


class SplitConfig(Struct, frozen=True):
    """The `config.json` of a folder that `split` wrote."""

    gardener: Part | None = None


class EndConfig(Struct, frozen=True):
    """Where an answer ends: `generation_config.json` says it, or `config.json`."""

    eos_token_id: int | tuple[int, ...] | None = None


class ModelConfig(LayerConfig, frozen=True, kw_only=True):
    """The `config.json` of a whole model."""

    model_type: str | None = None
    architectures: tuple[str, ...] | None = None
    quantization_config: Quantization | None = None
    use_sliding_window: bool | None = None
    sliding_window: Size | None = None
    max_window_layers: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    layer_types: tuple[str, ...] | None = None
    num_experts: Count | None = None
    num_local_experts: Count | None = None
    num_experts_per_tok: Count | None = None
    moe_intermediate_size: Size | None = None
    decoder_sparse_step: Size | None = None
    mlp_only_layers: tuple[int, ...] | None = None
    norm_topk_prob: bool | None = None


Kind = TypeVar("Kind", bound=Struct)


def checked(kind: type[Kind], file: Path, raw: Mapping[str, Any], way_out: str) -> Kind:
    """What `raw`, read from this file, says of the fields of `kind`. Raises UserError, which names
    the first one that is wrong; `way_out` says what to do about it."""
    known = [field for field in fields(kind) if field.name in raw]
    return kind(**{f.name: _checked(file, f, raw[f.name], way_out) for f in known})


def _checked(file: Path, field: FieldInfo, value: Any, way_out: str) -> Any:
    try:
        return convert(value, field.type)
    except ValidationError as error:
        reason = str(error).replace("`", "").replace("Expected", "expected")
        raise UserError(
            f"{file}: {field.name} is {reprlib.repr(value)} ({reason}): {way_out}"
        ) from error


def part_of(folder: Path) -> Part | None:
    """Which part of a model this folder holds; None: an ordinary model folder. Raises UserError."""
    file = folder / "config.json"
    raw = read_json(file)
    block = raw.get("gardener")
    if isinstance(block, dict) and "quant" in block and "stage" not in block:
        return None  # a whole model, of which is noted only how it is quantised
    return checked(SplitConfig, file, raw, "split the model anew").gardener


def transformers_config(folder: Path, way_out: str) -> "PretrainedConfig":
    """What transformers makes of the `config.json` in a folder. Raises UserError."""
    from transformers import AutoConfig  # late: it takes seconds, and is seldom needed

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,  # else it asks the user whether to run what the folder brings
        )
    except Exception as error:  # it computes with what the file says: nearly any of them
        raise unreadable(folder, error, way_out) from error
    return config


def unreadable(folder: Path, error: Exception, way_out: str) -> UserError:
    """What to say of a `config.json` that ended in this error."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{folder / 'config.json'} cannot be read ({textwrap.shorten(reason, 300)}): {way_out}"
    )
