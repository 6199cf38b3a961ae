"""How a GGUF file says that the rotary embedding is scaled: never without effect."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf_models
import numpy as np
import pytest
import tiny
import torch
from gguf_models import Written
from transformers import AutoConfig, Gemma3TextConfig, GraniteConfig, LlamaConfig, Phi3Config

from gardener.errors import UserError
from gardener.evaluation.transformers_model import load_transformers
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.plain_config import plain_config
from gardener.model.checkpoint.resolve import resolve
from gardener.model.loader import check_rotary

HEAD_DIM = 16
TOKENS = [number * 7 % 420 for number in range(60)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return gguf_models.make(
        tmp_path_factory.mktemp("model") / "a.gguf", LlamaConfig(**gguf_models.SIZES)
    )


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
        Phi3Config(**gguf_models.SIZES),
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
        (
            {"arch__rope__dimension_count": 8},
            r"llama\.rope\.dimension_count is 8, of a head_dim of 16, .* not supported for llama",
        ),
        ({"arch__rope__dimension_count": 0}, r"dimension_count is 0, of a head_dim of 16"),
        ({"rope_freqs__weight": FREQS[:1]}, r"rope_freqs\.weight has 1 numbers, not 8"),
        ({"rope_freqs__weight": -FREQS}, r"rope_freqs\.weight has the number -2\.0"),
        (
            {"rope_factors_long__weight": FREQS, "rope_factors_short__weight": FREQS[:1]},
            r"rope_factors_short\.weight has 1 numbers, not 8",
        ),
        ({"rope_freqs__weight": FREQS[:, None]}, r"rope_freqs\.weight is of type F32 and shape"),
    ],
)
def test_what_a_config_cannot_say_is_refused(
    plain: Written, tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    path = gguf_models.alter(plain, tmp_path / "b.gguf", **changes)
    with pytest.raises(UserError, match=rf"b\.gguf cannot be used: .*{what}"):
        resolve(str(path))


@pytest.mark.parametrize(
    ("config", "changes", "what"),
    [
        ("gemma3", {"arch__rope__freq_base": 0.0}, r"gemma3\.rope\.freq_base is 0\.0"),
        ("gemma3", {"arch__rope__freq_base": math.nan}, r"gemma3\.rope\.freq_base is nan"),
        ("gemma3", {"arch__rope__freq_base_swa": -1.0}, r"rope\.freq_base_swa is -1\.0"),
        ("gemma3", {"arch__rope__scaling__factor": -2.0}, r"rope\.scaling\.factor is -2\.0"),
        ("gemma3", {"arch__rope__scale_linear": -2.0}, r"rope\.scale_linear is -2\.0"),
        ("granite", {"arch__rope__scaling__finetuned": False}, r"scaling\.finetuned is False"),
        ("phi3", {"rope_freqs__weight": FREQS}, r"rope_freqs\.weight is not supported for phi3"),
        (
            "phi3",
            {"arch__rope__scaling__type": "yarn", "arch__rope__scaling__factor": 2.0},
            r"phi3\.rope\.scaling\.factor with yarn scaling is not supported",
        ),
        ("phi3", {"arch__rope__dimension_count": 0}, r"dimension_count is 0, of a head_dim of 16"),
        ("phi3", {"arch__rope__dimension_count": 32}, r"dimension_count is 32, of a head_dim"),
    ],
)
def test_what_a_family_does_not_know_is_refused(
    tmp_path: Path, config: str, changes: dict[str, Any], what: str
) -> None:
    makers = {"gemma3": Gemma3TextConfig, "granite": GraniteConfig, "phi3": Phi3Config}
    sizes = gguf_models.SIZES | {"head_dim": HEAD_DIM, "tie_word_embeddings": config != "phi3"}
    own = {"attention.sliding_window": 8} if config == "gemma3" else {}
    written = gguf_models.make(tmp_path / "a.gguf", makers[config](**sizes), "Q8_0", **own)
    resolve(str(written.path))
    path = gguf_models.alter(written, tmp_path / "b.gguf", **changes)
    with pytest.raises(UserError, match=rf"b\.gguf cannot be used: .*{what}"):
        resolve(str(path))


def test_a_factor_of_zero_is_none(plain: Written, tmp_path: Path) -> None:
    """In llama.cpp, where the old name counts then."""
    path = gguf_models.alter(plain, tmp_path / "b.gguf", arch__rope__scaling__factor=0.0)
    assert rope_of(path)["rope_type"] == "default"
    changes = {"arch__rope__scaling__factor": 0.0, "arch__rope__scale_linear": 4.0}
    assert rope_of(gguf_models.alter(plain, tmp_path / "c.gguf", **changes))["factor"] == 4.0


def test_transformers_is_not_asked_for_factors(plain: Written, tmp_path: Path) -> None:
    """It does not know them, and warns."""
    folder = resolve(str(gguf_models.alter(plain, tmp_path / "b.gguf", rope_freqs__weight=FREQS)))
    found = plain_config(json.loads((folder / "config.json").read_text()))
    assert found is not None
    assert Architecture.read(folder) == Architecture.from_config(AutoConfig.from_pretrained(folder))


def test_one_factor_is_not_taken_for_all_frequencies(plain: Written, tmp_path: Path) -> None:
    rope = {"rope_type": "factors", "rope_theta": 1e4}
    shape = Architecture.from_config(plain.model.config)
    check_rotary(tmp_path, replace(shape, ropes=({**rope, "factors": [2.0] * 8},)))
    with pytest.raises(UserError, match=r"rotary settings make no sense: .*'factors': \[2\.0\]"):
        check_rotary(tmp_path, replace(shape, ropes=({**rope, "factors": [2.0]},)))
