"""What the `config.json` of a one-pass head says: DFlash (z-lab) and DSpark (DeepSeek), as these
and SpecForge write it.

Keys stand in `dflash_config`, or beside the layers' own. `target_layer_ids` names layers by their
output, so id k is tap k+1 (see `messages.Open`), and -1 is the embedding.

A DFlash head fills in masked places: what it says at a place of its block is of the token there.
A DSpark head says at each place what comes after it, so it gets one level more out of a block. That
is what `sample_from_anchor` says; left out, it goes by the kind. DSpark has a Markov head besides,
for what the token before adds to each guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from gardener.draft.head_config import (
    LAYER_KEYS,
    WAY_OUT,
    LayerIds,
    StatedLayers,
    layer_fields,
)
from gardener.draft.head_keys import ONLY, refuse_unknown
from gardener.errors import UserError
from gardener.model.checkpoint.config import LayerConfig, Size, checked
from gardener.model.checkpoint.folders import read_json

_NESTED = "dflash_config"
_DFLASH, _DSPARK = "dflash", "dspark"
_KINDS = {
    "dflashdraftmodel": _DFLASH,
    "dsparkdraftmodel": _DSPARK,
    "qwen3dsparkmodel": _DSPARK,
}
"""Classes that such heads name, in small letters."""

_ONLY: dict[str, tuple[Any, ...]] = {
    **ONLY,
    "attention_mode": (None,),
    "final_logit_softcapping": (0, None),
    "input_embedding_scale": (1, None),
    "is_causal": (False, None),
    "markov_head_type": ("vanilla", None),
    "output_multiplier": (1, None),
    "projector_type": (_DFLASH, _DSPARK, None),
    "shift_label": (None,),
}


class BlockConfig(LayerConfig, frozen=True, kw_only=True):
    """The fields that matter of a one-pass head."""

    target_layer_ids: LayerIds | None = None
    mask_token_id: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    block_size: Annotated[int, Meta(ge=2, le=256)] | None = None
    markov_rank: Annotated[int, Meta(ge=0, le=2**16)] | None = None
    sample_from_anchor: bool | None = None
    num_target_layers: Size | None = None
    target_hidden_size: Size | None = None
    draft_vocab_size: Size | None = None


_OWN = frozenset(BlockConfig.__struct_fields__).difference(LayerConfig.__struct_fields__)


@dataclass(frozen=True)
class StatedBlock(StatedLayers):
    """What the config of a one-pass head says.

    name    of its kind, for people
    taps    features that it wants
    size    of a block: the anchor, which is the root of the tree, and masks
    mask    the token that stands where none is known
    rank    of its Markov head; 0: it has none
    follows whether it says at each place what comes after it, not what is there
    """

    fields: BlockConfig
    name: str
    taps: tuple[int, ...]
    size: int
    mask: int
    rank: int
    follows: bool


def is_one_pass(folder: Path) -> bool:
    """Whether the head in a folder is of this kind, and flat. Raises UserError."""
    raw = read_json(folder / "config.json")
    if "speculators_model_type" in raw:
        return False
    return _NESTED in raw or "block_size" in raw or _kind(raw) is not None


def read_block(folder: Path) -> StatedBlock:
    """Raises UserError, which names the first key that is wrong, missing or not known."""
    file = folder / "config.json"
    raw = read_json(file)
    nested = raw.get(_NESTED, {})
    if not isinstance(nested, dict):
        raise UserError(f"{file}: {_NESTED} is {nested!r}, not an object: {WAY_OUT}")
    refuse_unknown(file, raw, LAYER_KEYS | _OWN | {_NESTED}, "", WAY_OUT, _ONLY)
    refuse_unknown(file, nested, _OWN, _NESTED, WAY_OUT, _ONLY)
    merged = raw | nested
    fields = checked(BlockConfig, file, merged, WAY_OUT)
    kind = merged.get("projector_type") or _kind(raw)
    if kind not in (_DFLASH, _DSPARK):
        raise UserError(
            f"{file}: architectures is {raw.get('architectures')}: of one-pass heads only DFlash "
            f"and DSpark are read: {WAY_OUT}"
        )
    for key in ("target_layer_ids", "mask_token_id", "block_size"):
        if getattr(fields, key) is None:
            raise UserError(f"{file}: {key} is not there: {WAY_OUT}")
    if raw.get("model_type") == _DSPARK:
        raw = raw | {"model_type": "qwen3"}
    follows = fields.sample_from_anchor
    return StatedBlock(
        folder,
        layer_fields(file, raw, ""),
        fields,
        kind,
        tuple(id + 1 for id in fields.target_layer_ids or ()),
        fields.block_size or 0,
        fields.mask_token_id or 0,
        fields.markov_rank or 0,
        kind == _DSPARK if follows is None else follows,
    )


def _kind(raw: Mapping[str, Any]) -> str | None:
    classes = raw.get("architectures")
    names = [str(name).lower() for name in classes] if isinstance(classes, list) else []
    if not any(part in name for name in names for part in ("dflash", "dspark", "domino")):
        return None
    return _KINDS.get(names[0], names[0])
