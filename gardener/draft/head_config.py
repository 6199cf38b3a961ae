"""What the configs of all kinds of draft heads have in common: the fields of their layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from msgspec import Meta

from gardener.draft.head_keys import refuse_unknown
from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.config import LayerConfig, Rope, unreadable
from gardener.model.checkpoint.plain_config import plain_config
from gardener.protocol.messages import MAX_TAPS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

LayerId: TypeAlias = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
LayerIds: TypeAlias = Annotated[tuple[LayerId, ...], Meta(max_length=MAX_TAPS)]

WAY_OUT = "mend the file, or give --head another head"

LAYER_KEYS = frozenset(LayerConfig.__struct_fields__) | {"model_type"}
"""What describes a layer, as in the config of a model."""

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Whose layers a head's may be. Their attention sees all of the text, whatever the family's."""


@dataclass(frozen=True)
class StatedLayers:
    """The layers of the head in a folder, by the fields that a model's config would have."""

    folder: Path
    layer: Mapping[str, Any]

    @property
    def shape(self) -> Architecture:
        """Their sizes. Raises UserError."""
        known = plain_config(self.layer) or _whole(self.folder, self.layer)
        try:
            return Architecture.from_config(known)
        except Exception as error:  # it may be the config of anything
            raise unreadable(self.folder, error, WAY_OUT) from error


def layer_fields(file: Path, raw: Mapping[str, Any], within: str) -> dict[str, Any]:
    """The fields of a layer, with those that its family must have here."""
    layer = {"model_type": "llama"} | {key: raw[key] for key in raw if key in LAYER_KEYS}
    layer.pop("configuration_files", None)
    family = layer["model_type"]
    if family not in FAMILIES:
        raise UserError(
            f"{file}: {within}model_type is {family!r}; a head's layer is one of "
            f"{', '.join(FAMILIES)}: {WAY_OUT}"
        )
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(rope := layer.get(key), dict):
            refuse_unknown(file, rope, Rope.__struct_fields__, f"{within}{key}", WAY_OUT)
    if family == "mistral":
        layer["sliding_window"] = None
    elif family.startswith("qwen"):
        layer["use_sliding_window"] = False
    return layer


def _whole(folder: Path, layer: Mapping[str, Any]) -> "PretrainedConfig":
    """What transformers makes of the fields of a layer. Raises UserError."""
    from transformers import AutoConfig  # late: it takes seconds, and is seldom needed

    try:
        config: PretrainedConfig = AutoConfig.for_model(**layer)
    except Exception as error:  # it computes with what the file says: nearly any of them
        raise unreadable(folder, error, WAY_OUT) from error
    return config
