"""The model in a folder as transformers computes it: the weights that the folder has, all of them.

A weight that is missing would be filled with random numbers, and one that is not known left out,
with a line in the log: here that is an error.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gardener.errors import UserError
from gardener.model.checkpoint.folders import read_json
from gardener.model.checkpoint.quantised import quantised
from gardener.model.checkpoint.tensors import Checkpoint

if TYPE_CHECKING:
    import torch

_REPORTED = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")

_NO_WEIGHTS = "rotary_emb."
"""Frequencies that old checkpoints bring, and nobody reads: they follow from the config."""


def load_transformers(folder: Path, dtype: "torch.dtype") -> Any:
    """The model in a folder, on the CPU. Quantised weights are widened first, to float32. Raises
    UserError unless transformers takes exactly the weights that are there."""
    import transformers

    checkpoint = Checkpoint(folder)
    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True}
    raw = read_json(folder / "config.json")
    if raw.get("attn_logit_softcapping") is not None:
        options["attn_implementation"] = "eager"  # the fused kernel leaves the bound out
    if checkpoint.gguf is None and quantised(folder) is None:
        kind: Any = transformers.AutoModelForCausalLM
        model, report = kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    else:
        raw = _understood(raw)
        kind = getattr(transformers, raw["architectures"][0])
        config = transformers.AutoConfig.for_model(**raw)
        names = checkpoint.names()
        weights = {checkpoint.info(name).stored: checkpoint.read(name) for name in names}
        model, report = kind.from_pretrained(None, config=config, state_dict=weights, **options)
    _check(folder, report)
    return model


def _understood(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in words that transformers has. It knows no `factors` that divide the frequencies of
    the rotary embedding, but a scaling that has them twice: for short texts and for long ones."""
    rope = config.get("rope_parameters", {})
    if rope.get("rope_type") != "factors":
        return dict(config)
    factors = rope["factors"]
    same = {
        "rope_type": "longrope",
        "rope_theta": rope["rope_theta"],
        "short_factor": factors,
        "long_factor": factors,
        "factor": 1.0,
        "original_max_position_embeddings": config["max_position_embeddings"],
        "attention_factor": 1.0,
    }
    return {**config, "rope_parameters": same}


def _check(folder: Path, report: Mapping[str, Any]) -> None:
    """Raise UserError if anything was not as it should be."""
    found = {
        what.replace("_", " "): sorted(
            str(each) for each in report.get(what, ()) if _NO_WEIGHTS not in str(each)
        )
        for what in _REPORTED
    }
    wrong = [f"{what}: {', '.join(names[:5])}" for what, names in found.items() if names]
    if wrong:
        raise UserError(
            f"transformers does not take the weights in {folder} as they are ({'; '.join(wrong)}): "
            "compare with --reference plain, or mend the model"
        )
