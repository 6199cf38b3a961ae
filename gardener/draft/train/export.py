"""The trained head as files, in the format of published EAGLE-3 checkpoints.

config.json         the layer's sizes, its taps (`eagle_aux_hidden_state_layer_ids`) and the size
                    of the draft vocabulary
model.safetensors   bfloat16, names as in EAGLE-3; no `lm_head.weight`, for it is the target's
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gardener.draft.eagle_files import INDUCTION, TAPS
from gardener.draft.train.head import DraftHead, induction_of
from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.folders import read_json
from gardener.runtime.files import make_folder, whole_file, write_text

WEIGHTS = "model.safetensors"


def write_head(
    folder: Path, head: DraftHead, kept: Tensor, taps: tuple[int, ...], fingerprint: str
) -> None:
    """Write the head; `kept`: the tokens of the draft vocabulary; `fingerprint`: of the target.

    Raises UserError.
    """
    make_folder(folder)
    tensors = {name: p.detach().to(torch.bfloat16) for name, p in head.state_dict().items()}
    chosen = torch.zeros(head.shape.vocab, dtype=torch.bool)
    chosen[kept] = True
    tensors["d2t"] = kept - torch.arange(len(kept))
    tensors["t2d"] = chosen
    with whole_file(folder / WEIGHTS) as draft:
        save_file(tensors, draft, metadata={"format": "pt"})
        draft.chmod(0o644)
    config = _config(head, len(kept), taps) | {"target_fingerprint": fingerprint}
    text = json.dumps(config, indent=2, sort_keys=True)
    write_text(folder / "config.json", text + "\n")


def _config(head: DraftHead, vocab: int, taps: tuple[int, ...]) -> dict[str, Any]:
    shape = head.shape
    return {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "attention_bias": False,
        "draft_vocab_size": vocab,
        TAPS: list(taps),
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "intermediate_size": head.inner,
        "max_position_embeddings": shape.config().max_position_embeddings,
        "mlp_bias": False,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": 1,
        "num_key_value_heads": shape.kv_heads,
        INDUCTION: head.induction,
        "rms_norm_eps": shape.eps,
        "rope_parameters": shape.rope,
        "tie_word_embeddings": False,
        "vocab_size": shape.vocab,
    }


def read_head(
    folder: Path, shape: Architecture, induction: int = 0
) -> tuple[DraftHead, Tensor, tuple[int, ...]]:
    """A head written by `write_head`, with its draft vocabulary and its taps. It gets more
    induction heads if it has fewer than `induction`.

    Raises UserError for any other kind of head, or one for another model.
    """
    config = read_json(folder / "config.json")
    try:
        tensors = load_file(folder / WEIGHTS)
        kept = tensors.pop("d2t")
        taps = tuple(config[TAPS])
        tensors.pop("t2d", None)
        induction = max(induction, induction_of(tensors, shape))
        head = DraftHead(shape, len(taps), config["intermediate_size"], induction)
        head.take({name: tensor.float() for name, tensor in tensors.items()})
    except (OSError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{folder} cannot be trained further ({reason}): only heads that `train-draft` wrote "
            "for the same model can"
        ) from error
    return head, kept + torch.arange(len(kept)), taps
