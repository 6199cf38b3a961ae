"""Keys of a head's config: those of published heads are known, any other one is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import heads
import pytest
import tiny
import torch

from gardener.draft.eagle import Eagle1, Eagle3
from gardener.draft.eagle_files import load_eagle
from gardener.errors import UserError

LAYERS = 8
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": tiny.VOCAB,
    "draft_vocab_size": 30,
    "head_dim": 8,
}
"""What stands in the place of a published head's sizes, where it has these keys."""

VICUNA = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 1,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.28.1",
    "use_cache": True,
    "vocab_size": 32000,
}
PUBLISHED: dict[str, tuple[type, dict[str, Any]]] = {
    "EAGLE-Vicuna-7B-v1.3": (Eagle1, VICUNA),
    "EAGLE-Vicuna-13B-v1.3": (Eagle1, VICUNA | {"hidden_size": 5120, "num_attention_heads": 40}),
    "EAGLE-llama2-chat-7B": (
        Eagle1,
        VICUNA | {"num_key_value_heads": 32, "pretraining_tp": 1, "rope_scaling": None},
    ),
    "EAGLE-LLaMA3-Instruct-8B": (
        Eagle1,
        VICUNA | {"num_key_value_heads": 8, "rope_theta": 500000.0, "bias": False},
    ),
    "EAGLE3-LLaMA3.1-Instruct-8B": (
        Eagle3,
        VICUNA | {"num_key_value_heads": 8, "draft_vocab_size": 32000},
    ),
    "EAGLE3-Vicuna1.3-13B": (
        Eagle3,
        VICUNA | {"hidden_size": 5120, "num_key_value_heads": 40, "draft_vocab_size": 32000},
    ),
    "SpecForge": (
        Eagle3,
        VICUNA
        | {
            "architectures": ["LlamaForCausalLMEagle3"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "draft_vocab_size": 32000,
            "eagle_config": {
                "eagle_aux_hidden_state_layer_ids": [1, 3, 4],
                "use_aux_hidden_state": True,
            },
            "head_dim": 128,
            "max_window_layers": 48,
            "num_key_value_heads": 4,
            "rope_scaling": None,
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "use_sliding_window": False,
        },
    ),
    "ModelOpt": (
        Eagle3,
        VICUNA
        | {
            "attention_bias": False,
            "draft_vocab_size": 32000,
            "eagle_config": {
                "eagle_aux_hidden_state_layer_ids": [1, 3, 4],
                "next_layer_regular": True,
                "parallel_draft_heads_num_layers": 1,
                "parallel_draft_step": 1,
                "use_aux_hidden_state": True,
                "use_input_layernorm_in_first_layer": True,
                "use_last_layernorm": True,
                "use_mtp_layernorm": False,
            },
            "mlp_bias": False,
            "num_key_value_heads": 8,
            "pretraining_tp": 1,
        },
    ),
}
"""As these are published, and the configs that such trainers write."""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"oak": None}, r"config\.json: oak is not known here"),
    "nested": ({"eagle_config": {"oak": 1}}, r"eagle_config\.oak is not known here"),
    "rope": ({"rope_scaling": {"rope_type": "yarn", "oak": 1}}, r"rope_scaling\.oak is not known"),
    "no-features": (
        {"eagle_config": {"use_aux_hidden_state": False}},
        r"eagle_config\.use_aux_hidden_state is False, which is not supported",
    ),
    "parallel": ({"parallel_drafting": True}, "parallel_drafting is True, which is not supported"),
    "window": ({"sliding_window": 4096}, "sliding_window is 4096, which is not supported"),
    "scale": ({"logit_scale": 0.5}, r"logit_scale is 0\.5, which is not supported"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder, num_hidden_layers=LAYERS)
    return folder


def small(published: dict[str, Any]) -> dict[str, Any]:
    """The same keys with tiny sizes."""
    return published | {key: SIZES[key] for key in SIZES.keys() & published.keys()}


def load(folder: Path, model: Path, kind: type, config: dict[str, Any]) -> Eagle1 | Eagle3:
    whole = SIZES | config
    make: Callable[[], dict[str, torch.Tensor]] = (
        (lambda: heads.eagle1_tensors(whole))
        if kind is Eagle1
        else (lambda: heads.eagle3_tensors(whole, taps=3))
    )
    heads.write(folder, config, make(), pickled=False)
    return load_eagle(folder, model, dtype="float32", device="cpu")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_heads_are_read(name: str, model: Path, tmp_path: Path) -> None:
    kind, published = PUBLISHED[name]
    head = load(tmp_path, model, kind, small(published))
    assert type(head) is kind
    assert head.taps == ((LAYERS,) if kind is Eagle1 else (2, 4, 5))


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("head", ["EAGLE-Vicuna-7B-v1.3", "EAGLE3-LLaMA3.1-Instruct-8B"])
def test_a_key_that_is_not_known_is_refused(
    head: str, name: str, model: Path, tmp_path: Path
) -> None:
    kind, published = PUBLISHED[head]
    more, why = REFUSED[name]
    with pytest.raises(UserError, match=why) as refused:
        load(tmp_path, model, kind, small(published) | more)
    assert str(refused.value).endswith("mend the file, or give --head another head")
