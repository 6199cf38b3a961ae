"""What the `config.json` of a draft head says, checked as that of a model is.

There are two forms. The flat one is that of EAGLE itself, of SpecForge, SGLang and ModelOpt, and
ours: fields of the layer and of the head side by side. The form of `speculators` (RedHat, vLLM) has
the layer's in `transformer_layer_config`. They mean different things by two keys:

`eagle_aux_hidden_state_layer_ids`. Tap k here is what enters layer k (see `messages.Open`), which
    is layer k-1's output, and `hidden_states[k]` of transformers. So it is in EAGLE's own code, in
    vLLM (what enters layer k is k; the embedding is 0) and in `speculators`, which takes its
    training data from vLLM. SpecForge, SGLang and ModelOpt number layers by their output, so that
    their k is tap k+1, and their usual ids begin with 1 where the others' begin with 2. SGLang
    tells flat heads apart by that (its pull request 25454): ids that begin with 1 are outputs. The
    same is done here, but for heads of our own, whose ids are taps.
    Without ids all mean what enters layers 2, n/2 and n-3.

`norm_before_residual`: whether the normed feature goes on past attention, or the feature itself.
    Left out of a flat head it is false, as in EAGLE's code, which knows no other way. In the form
    of `speculators` its class takes it for false, vLLM takes it for true: such a file is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from gardener.draft.head_config import (
    LAYER_KEYS,
    WAY_OUT,
    LayerIds,
    StatedLayers,
    layer_fields,
)
from gardener.draft.head_keys import refuse_unknown
from gardener.errors import UserError
from gardener.model.checkpoint.config import LayerConfig, Size, checked
from gardener.model.checkpoint.folders import read_json

TAPS = "eagle_aux_hidden_state_layer_ids"
"""Key in a head's config: its taps."""

INDUCTION = "induction_key_value_heads"
"""Another: key heads for induction, beyond the others, and with as many query heads each."""


class EagleConfig(Struct, frozen=True):
    """Where some trainers put these."""

    eagle_aux_hidden_state_layer_ids: LayerIds | None = None
    norm_before_fc: bool | None = None


class HeadConfig(LayerConfig, frozen=True, kw_only=True):
    """The fields that matter of a head.

    norm_before_residual  see above
    norm_before_fc        one norm over all features before `fc`
    fc_norm               a norm for the features of each tap before `fc`
    norm_output           a row hands on what the last norm gives, not what enters it
    """

    target_hidden_size: Size | None = None
    draft_vocab_size: Size | None = None
    induction_key_value_heads: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    eagle_aux_hidden_state_layer_ids: LayerIds | None = None
    eagle_config: EagleConfig | None = None
    bias: bool | None = True
    norm_before_residual: bool | None = None
    norm_before_fc: bool | None = None
    fc_norm: bool | None = None
    norm_output: bool | None = None


class SpeculatorsConfig(Struct, frozen=True):
    """What only the form of `speculators` has."""

    speculators_model_type: str | UnsetType = UNSET
    transformer_layer_config: dict[str, Any] | UnsetType = UNSET


_HEADS = frozenset(HeadConfig.__struct_fields__).difference(LayerConfig.__struct_fields__)
_FLAT_ALONE = frozenset((INDUCTION, "eagle_config", "bias"))
HEADS_OWN = _HEADS | {"target_fingerprint"}
"""Fields that a model does not have."""


@dataclass(frozen=True)
class Stated(StatedLayers):
    """What the config of an EAGLE head says.

    fields    those that matter
    standard  whether it is in the form of `speculators`
    ours      whether `train-draft` wrote it
    """

    fields: HeadConfig
    standard: bool
    ours: bool

    @property
    def norm_before_fc(self) -> bool:
        nested = self.fields.eagle_config and self.fields.eagle_config.norm_before_fc
        return bool(self.fields.norm_before_fc or nested)

    def taps(self, layers: int) -> tuple[int, ...]:
        """What it wants of a target with so many layers; nothing is checked."""
        nested = self.fields.eagle_config
        ids = self.fields.eagle_aux_hidden_state_layer_ids
        if not ids and nested is not None:
            ids = nested.eagle_aux_hidden_state_layer_ids
        if not ids:
            return 2, layers // 2, layers - 3
        outputs = ids[0] == 1 and not self.standard and not self.ours
        return tuple(id + 1 for id in ids) if outputs else ids


def read_stated(folder: Path) -> Stated:
    """Raises UserError, which names the first key that is wrong, not known, or of a head of another
    kind."""
    file = folder / "config.json"
    raw = read_json(file)
    outer = checked(SpeculatorsConfig, file, raw, WAY_OUT)
    if outer.speculators_model_type is UNSET and outer.transformer_layer_config is UNSET:
        return _flat(folder, file, raw)
    if outer.speculators_model_type != "eagle3":
        kind = raw.get("speculators_model_type")
        raise UserError(
            f"{file}: speculators_model_type is {kind!r}; of this form only 'eagle3' is read: "
            f"{WAY_OUT}"
        )
    if outer.transformer_layer_config is UNSET:
        raise UserError(f"{file}: there is no transformer_layer_config: {WAY_OUT}")
    return _standard(folder, file, raw, outer.transformer_layer_config)


def _flat(folder: Path, file: Path, raw: Mapping[str, Any]) -> Stated:
    refuse_unknown(file, raw, LAYER_KEYS | _HEADS, "", WAY_OUT)
    fields = checked(HeadConfig, file, raw, WAY_OUT)
    nested = raw.get("eagle_config")
    if nested is not None:
        refuse_unknown(file, nested, EagleConfig.__struct_fields__, "eagle_config", WAY_OUT)
    ours = "target_fingerprint" in raw or INDUCTION in raw
    return Stated(folder, layer_fields(file, raw, ""), fields, standard=False, ours=ours)


def _standard(folder: Path, file: Path, raw: Mapping[str, Any], layer: Mapping[str, Any]) -> Stated:
    own = set(SpeculatorsConfig.__struct_fields__) | _HEADS - _FLAT_ALONE
    refuse_unknown(file, raw, own, "", WAY_OUT)
    within = "transformer_layer_config"
    refuse_unknown(file, layer, LAYER_KEYS, within, WAY_OUT)
    merged = {**layer, **{key: raw[key] for key in _HEADS & raw.keys()}}
    fields = checked(HeadConfig, file, merged, WAY_OUT)
    if fields.norm_before_residual is None:
        raise UserError(
            f"{file}: norm_before_residual is not there, which speculators takes for false and "
            "vLLM for true: write into it which of them the head was trained with"
        )
    return Stated(
        folder, layer_fields(file, layer, f"{within}."), fields, standard=True, ours=False
    )
