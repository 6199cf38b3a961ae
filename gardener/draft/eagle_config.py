"""What the `config.json` of a draft head says, checked as that of a model is."""

from pathlib import Path
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from gardener.model.checkpoint.config import LayerConfig, Size, checked
from gardener.model.checkpoint.folders import read_json
from gardener.protocol.messages import MAX_TAPS

Layer: TypeAlias = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Taps: TypeAlias = Annotated[tuple[Layer, ...], Meta(max_length=MAX_TAPS)]

WAY_OUT = "mend the file, or give --head another head"


class EagleConfig(Struct, frozen=True):
    """Where some trainers put the taps."""

    eagle_aux_hidden_state_layer_ids: Taps | None = None


class HeadConfig(LayerConfig, frozen=True, kw_only=True):
    """The fields that matter of a head."""

    target_hidden_size: Size | None = None
    draft_vocab_size: Size | None = None
    induction_key_value_heads: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    eagle_aux_hidden_state_layer_ids: Taps | None = None
    eagle_config: EagleConfig | None = None
    bias: bool | None = True
    fc_norm: bool | None = None
    norm_output: bool | None = None

    @classmethod
    def read(cls, file: Path) -> "HeadConfig":
        """Raises UserError, which names the first field that is wrong."""
        return checked(cls, file, read_json(file), WAY_OUT)

    @property
    def taps(self) -> tuple[int, ...] | None:
        """As stated; None where nothing is."""
        nested = self.eagle_config and self.eagle_config.eagle_aux_hidden_state_layer_ids
        return self.eagle_aux_hidden_state_layer_ids or nested or None


HEADS_OWN = {"target_fingerprint"}.union(HeadConfig.__struct_fields__).difference(
    LayerConfig.__struct_fields__
)
"""Fields that a model does not have."""
