"""How a GGUF file says that the rotary embedding is scaled: never without effect."""

import json
import math
from pathlib import Path
from typing import Any

import gguf_models
import numpy as np
import pytest
import tiny
import torch
from gguf_models import Written
from transformers import LlamaConfig, Phi3Config

from gardener.errors import UserError
from gardener.evaluation.transformers_model import load_transformers
from gardener.model.checkpoint.resolve import resolve

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
HEAD_DIM = 16
TOKENS = [number * 7 % 420 for number in range(60)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return gguf_models.make(tmp_path_factory.mktemp("model") / "a.gguf", LlamaConfig(**SIZES))


def rope_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((resolve(str(path)) / "config.json").read_text())
    return dict(found["rope_parameters"])


def check(path: Path, written: Written, rope: dict[str, Any], tolerance: float = 1e-5) -> None:
    """The file computes what transformers does with these settings, and not what it does with
    none."""
    config = type(written.model.config)(
        **{**written.model.config.to_dict(), "rope_parameters": {"rope_theta": 10000.0, **rope}}
    )
    model = type(written.model).from_pretrained(None, config=config, state_dict=written.values)
    expected = tiny.logits(model.eval(), TOKENS)
    found = tiny.logits(load_transformers(resolve(str(path)), torch.float32).eval(), TOKENS)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    assert (tiny.logits(written.model, TOKENS) - expected).abs().max() > 1e-3


def test_linear(plain: Written, tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "factor": 4.0}
    scaling = {"arch__rope__scaling__type": "linear", "arch__rope__scaling__factor": 4.0}
    check(gguf_models.alter(plain, tmp_path / "b.gguf", **scaling), plain, rope)
    check(gguf_models.alter(plain, tmp_path / "c.gguf", arch__rope__scale_linear=4.0), plain, rope)
    untyped = gguf_models.alter(plain, tmp_path / "d.gguf", arch__rope__scaling__factor=4.0)
    check(untyped, plain, rope)


def test_yarn(plain: Written, tmp_path: Path) -> None:
    scaling = {
        "arch__rope__scaling__type": "yarn",
        "arch__rope__scaling__factor": 4.0,
        "arch__rope__scaling__original_context_length": 32,
    }
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    check(gguf_models.alter(plain, tmp_path / "b.gguf", **scaling), plain, rope)
    scaling |= {
        "arch__rope__scaling__attn_factor": 1.5,
        "arch__rope__scaling__yarn_beta_fast": 16.0,
        "arch__rope__scaling__yarn_beta_slow": 2.0,
    }
    rope |= {
        "attention_factor": 1.5 * (0.1 * math.log(4.0) + 1),
        "beta_fast": 16.0,
        "beta_slow": 2.0,
    }
    check(gguf_models.alter(plain, tmp_path / "c.gguf", **scaling), plain, rope)


def test_the_scaling_of_llama_3_stands_in_a_tensor(plain: Written, tmp_path: Path) -> None:
    """Computed as the converter does it (`LlamaModel.generate_extra_tensors` of llama.cpp)."""
    frequencies = 10000.0 ** -(np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    divisors = []
    for length in 2 * math.pi / frequencies:
        if length < 32 / 4.0:
            divisors.append(1.0)
        elif length > 32 / 1.0:
            divisors.append(8.0)
        else:
            smooth = (32 / length - 1.0) / (4.0 - 1.0)
            divisors.append(1 / ((1 - smooth) / 8.0 + smooth))
    tensor = np.array(divisors, np.float32)
    path = gguf_models.alter(plain, tmp_path / "b.gguf", rope_freqs__weight=tensor)
    assert rope_of(path) == {
        "rope_type": "factors",
        "factors": tensor.tolist(),
        "rope_theta": 10000.0,
    }
    rope = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    check(path, plain, rope, 1e-4)


def test_factors_of_one_are_none(plain: Written, tmp_path: Path) -> None:
    ones = np.ones(HEAD_DIM // 2, np.float32)
    path = gguf_models.alter(
        plain,
        tmp_path / "b.gguf",
        rope_freqs__weight=ones,
        arch__rope__scaling__type="none",
        arch__rope__scaling__factor=1.0,
        arch__rope__scaling__finetuned=True,
    )
    assert rope_of(path) == {"rope_type": "default", "rope_theta": 10000.0}


def test_longrope(tmp_path: Path) -> None:
    written = gguf_models.make(
        tmp_path / "a.gguf",
        Phi3Config(**SIZES),
        "Q8_0",
        0,
        **{"rope.scaling.original_context_length": 32, "rope.scaling.attn_factor": 1.25},
    )
    long = np.linspace(1, 9, HEAD_DIM // 2).astype(np.float32)
    short = np.linspace(1, 2, HEAD_DIM // 2).astype(np.float32)
    path = gguf_models.alter(
        written,
        tmp_path / "b.gguf",
        rope_factors_long__weight=long,
        rope_factors_short__weight=short,
    )
    rope = {
        "rope_type": "longrope",
        "long_factor": long.tolist(),
        "short_factor": short.tolist(),
        "attention_factor": 1.25,
        "original_max_position_embeddings": 32,
    }
    written.model.config.original_max_position_embeddings = 32
    check(path, written, rope)


FREQS = np.full(HEAD_DIM // 2, 2.0, np.float32)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"arch__rope__scaling__alpha": 1000.0}, r"llama\.rope\.scaling\.alpha"),
        ({"arch__rope__scaling__type": "su"}, r"rope\.scaling\.type is su"),
        (
            {"arch__rope__scaling__factor": 2.0, "rope_freqs__weight": FREQS},
            r"both rope_freqs\.weight and linear",
        ),
        ({"arch__rope__scaling__attn_factor": 1.5}, r"attn_factor is 1\.5"),
        (
            {
                "arch__rope__scaling__type": "yarn",
                "arch__rope__scaling__factor": 2.0,
                "arch__rope__scaling__yarn_log_multiplier": 0.1,
            },
            "yarn_log_multiplier is 0.1",
        ),
        ({"rope_factors_long__weight": FREQS}, "only one of the tensors .*: short"),
        ({"rope_freqs__weight": FREQS[:, None]}, r"rope_freqs\.weight is of type F32 and shape"),
    ],
)
def test_what_a_config_cannot_say_is_refused(
    plain: Written, tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    path = gguf_models.alter(plain, tmp_path / "b.gguf", **changes)
    with pytest.raises(UserError, match=rf"b\.gguf cannot be used: .*{what}"):
        resolve(str(path))
