"""EAGLE-3 heads in the form of `speculators` draft as their reference does, or are refused."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import heads
import pytest
import speculators
import tiny
import torch
from torch import Tensor

from gardener.decoding.tree import Tree
from gardener.draft.calibration import Calibration
from gardener.draft.eagle import Eagle1, Eagle3
from gardener.draft.eagle_config import TAPS
from gardener.draft.eagle_files import load_eagle
from gardener.draft.incremental import Incremental
from gardener.errors import UserError
from gardener.model.tensors import pack

LAYERS, TEXT, CHAIN = 8, [3, 1, 4, 1, 5, 9, 2, 6], [7, 60, 7]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder, num_hidden_layers=LAYERS)
    return folder


@pytest.fixture(autouse=True)
def _no_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities as the network gives them."""
    monkeypatch.setattr(Calibration, "corrected", lambda self, chance, *where: chance)


def load(folder: Path, model: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Eagle3:
    heads.write(folder, config, tensors, pickled=False)
    head = load_eagle(folder, model, dtype="float32", device="cpu")
    assert not isinstance(head, Eagle1)
    return head


def ours(head: Eagle3, features: Tensor, drafted: Sequence[int], kept: Tensor) -> Tensor:
    """As `Reference.laws`, by way of the drafter: settled text, then a chain of the tree."""
    draft = Incremental(head, Calibration(), width=len(kept)).open(TEXT)
    draft.settle((), [pack(part) for part in features.chunk(len(head.taps), -1)])
    tree = Tree(len(TEXT) - 1, TEXT[-1])
    at = [tree.root]
    for token in drafted:
        at.append(tree.graft(at[-1], token, 0.0).id)
    places = {token: place for place, token in enumerate(kept.tolist())}
    laws = torch.zeros(len(at), len(kept))
    for law, told in zip(
        laws, heads.said(draft.expand([tree.lineage(id) for id in at])), strict=True
    ):
        for guess in told:
            law[places[guess.token]] = guess.probability
    return laws


def features(taps: int = 3) -> Tensor:
    source = torch.Generator().manual_seed(5)
    return torch.randn(len(TEXT) - 1, taps * speculators.WIDTH, generator=source) * 2


FLAGS = [
    {"norm_before_residual": before, "norm_output": output} | ({fused: True} if fused else {})
    for before, output, fused in itertools.product(
        (True, False), (True, False), ("", "norm_before_fc", "fc_norm")
    )
]
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-biased": {"attention_bias": True, "mlp_bias": True},
    "qwen3": {"model_type": "qwen3"},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: ",".join(k for k in flags if flags[k]))
def test_it_drafts_as_the_reference_does(
    flags: dict[str, bool], shape: str, model: Path, tmp_path: Path
) -> None:
    config = speculators.config(SHAPES[shape], **flags)
    tensors = speculators.tensors(config)
    head = load(tmp_path, model, config, tensors)
    kept = tensors["d2t"] + torch.arange(speculators.DRAFT)
    expected = speculators.Reference(config, tensors).laws(TEXT, features(), CHAIN)
    told = ours(head, features(), CHAIN, kept)
    assert torch.allclose(told, expected, atol=1e-5)
    assert expected.max() < 0.99  # so that laws could differ


def test_every_flag_changes_what_is_drafted() -> None:
    """Else the comparison would show nothing of it."""
    whole = speculators.config(norm_before_fc=True, fc_norm=True, norm_output=True)
    tensors = speculators.tensors(whole)
    laws = [
        speculators.Reference(whole | flags, tensors).laws(TEXT, features(), CHAIN)
        for flags in (
            {"norm_before_residual": before, "norm_output": output, "norm_before_fc": fc} | each
            for before, output, fc in itertools.product((True, False), repeat=3)
            for each in ({"fc_norm": True}, {"fc_norm": False})
        )
    ]
    for one, other in itertools.combinations(laws, 2):
        assert (one - other).abs().max() > 1e-3


def test_taps_are_the_ids_that_are_stated(model: Path, tmp_path: Path) -> None:
    for ids in ([2, 4, 6], [1, 3, 5], [0, 1, 7]):
        config = speculators.config() | {TAPS: ids}
        head = load(tmp_path / str(ids), model, config, speculators.tensors(config))
        assert head.taps == tuple(ids)


def test_ids_that_are_null_or_left_out_mean_the_usual_three(model: Path, tmp_path: Path) -> None:
    config = speculators.config()
    tensors = speculators.tensors(config)
    assert load(tmp_path / "null", model, config, tensors).taps == (2, LAYERS // 2, LAYERS - 3)
    del config[TAPS]
    assert load(tmp_path / "less", model, config, tensors).taps == (2, LAYERS // 2, LAYERS - 3)


def test_five_taps_are_as_good_as_three(model: Path, tmp_path: Path) -> None:
    config = speculators.config(fc_norm=True) | {TAPS: [1, 2, 4, 5, 7]}
    tensors = speculators.tensors(config, taps=5)
    head = load(tmp_path, model, config, tensors)
    kept = tensors["d2t"] + torch.arange(speculators.DRAFT)
    expected = speculators.Reference(config, tensors).laws(TEXT, features(5), CHAIN)
    assert torch.allclose(ours(head, features(5), CHAIN, kept), expected, atol=1e-5)


def test_the_embedding_in_the_file_is_used(model: Path, tmp_path: Path) -> None:
    config = speculators.config()
    tensors = speculators.tensors(config)
    kept = tensors["d2t"] + torch.arange(speculators.DRAFT)
    own = ours(load(tmp_path / "own", model, config, tensors), features(), CHAIN, kept)
    del tensors["embed_tokens.weight"]
    lent = ours(load(tmp_path / "lent", model, config, tensors), features(), CHAIN, kept)
    assert not torch.allclose(own, lent, atol=1e-3)


def test_newer_keys_of_transformers_are_known(model: Path, tmp_path: Path) -> None:
    """As its `to_dict` writes them now."""
    from transformers import LlamaConfig, Qwen3Config

    sizes = {
        key: value
        for key, value in speculators.layer_config().items()
        if key not in ("model_type", "rope_theta", "rope_scaling", "torch_dtype", "pretraining_tp")
    }
    for kind in (LlamaConfig, Qwen3Config):
        layer = kind(**sizes, rope_parameters={"rope_type": "default", "rope_theta": 1e4}).to_dict()
        config = speculators.config() | {"transformer_layer_config": layer}
        assert load(tmp_path / kind.model_type, model, config, speculators.tensors(config)).taps


@pytest.mark.parametrize("residual", [True, False, None])
@pytest.mark.parametrize("fused", ["", "eagle_config", "fc_norm"])
def test_flat_heads_obey_the_same_flags(
    fused: str, residual: bool | None, model: Path, tmp_path: Path
) -> None:
    """EAGLE-3.1 of SpecForge is flat. Without a word the feature itself goes on, not the normed."""
    config = speculators.config(
        norm_before_residual=bool(residual),
        norm_before_fc=fused == "eagle_config",
        fc_norm=fused == "fc_norm",
        norm_output=fused == "fc_norm",
    )
    tensors = speculators.tensors(config)
    flat: dict[str, Any] = speculators.layer_config(draft_vocab_size=speculators.DRAFT)
    if residual is not None:
        flat["norm_before_residual"] = residual
    if fused == "eagle_config":
        flat["eagle_config"] = {"norm_before_fc": True}
    elif fused:
        flat |= {"fc_norm": True, "norm_output": True}
    renamed = {name.replace("layers.0", "midlayer"): each for name, each in tensors.items()}
    kept = tensors["d2t"] + torch.arange(speculators.DRAFT)
    expected = speculators.Reference(config, tensors).laws(TEXT, features(), CHAIN)
    told = ours(load(tmp_path, model, flat, renamed), features(), CHAIN, kept)
    assert torch.allclose(told, expected, atol=1e-5)


# --- what is refused -------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no-norm_before_residual": (
        {"norm_before_residual": None},
        r"norm_before_residual is not there, which speculators takes for false and vLLM for true",
    ),
    "another-kind": (
        {"speculators_model_type": "eagle"},
        r"speculators_model_type is 'eagle'; of this form only 'eagle3' is read",
    ),
    "unknown": ({"norm_after_fc": False}, r"norm_after_fc is not known here"),
    "both-norms": (
        {"norm_before_fc": True, "fc_norm": True},
        r"norm_before_fc and fc_norm are both true",
    ),
    "no-norm-there": ({"norm_before_fc": True}, r"input_norm\.weight is missing"),
    "no-norms-there": ({"fc_norm": True}, r"fc_norm\.0\.weight is missing"),
    "last-layer": ({TAPS: [2, 4, LAYERS]}, r"the last layer, 8, gives before the last norm"),
    "beyond": ({TAPS: [2, 4, LAYERS + 1]}, r"must ascend within a model of 8 layers"),
    "quantised": ({"quantization_config": {"bits": 4}}, r"quantization_config is \{'bits': 4\}"),
    "no-layer": ({"transformer_layer_config": 5}, r"transformer_layer_config is 5"),
    "flag": ({"norm_output": "yes"}, r"norm_output is 'yes' \(expected bool"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str, model: Path, tmp_path: Path) -> None:
    more, why = WRONG[name]
    whole = speculators.config()
    with pytest.raises(UserError, match=why):
        load(tmp_path, model, whole | more, speculators.tensors(whole))


WRONG_LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"oak": 1}, r"transformer_layer_config\.oak is not known here"),
    "window": (
        {"sliding_window": 64},
        r"transformer_layer_config\.sliding_window is 64, which is not supported",
    ),
    "kinds": ({"layer_types": ["sliding_attention"]}, r"layer_types is \['sliding_attention'\]"),
    "partial": ({"partial_rotary_factor": 0.25}, r"partial_rotary_factor is 0\.25, which is not"),
    "family": ({"model_type": "gemma2"}, r"model_type is 'gemma2'; a head's layer is one of llama"),
    "layers": ({"num_hidden_layers": 2}, r"num_hidden_layers is 2, only 1 is supported"),
    "vocabulary": ({"vocab_size": 60}, r"vocab_size is 60, the model's is 61"),
    "bias": ({"attention_bias": True}, r"attention_bias is true, but there is no layers\.0"),
    "head-norms": ({"model_type": "qwen3"}, r"self_attn\.q_norm\.weight is missing"),
    "rope": (
        {"rope_scaling": {"rope_type": "linear", "oak": 2}},
        r"rope_scaling\.oak is not known",
    ),
}


@pytest.mark.parametrize("name", WRONG_LAYERS)
def test_what_is_wrong_in_the_layer_is_named(name: str, model: Path, tmp_path: Path) -> None:
    more, why = WRONG_LAYERS[name]
    with pytest.raises(UserError, match=why):
        load(tmp_path, model, speculators.config(more), speculators.tensors(speculators.config()))


def test_a_window_that_is_not_used_is_no_matter(model: Path, tmp_path: Path) -> None:
    unused = {"sliding_window": 64, "use_sliding_window": False, "layer_types": ["full_attention"]}
    config = speculators.config(unused)
    assert load(tmp_path, model, config, speculators.tensors(config)).taps == (2, 4, 5)


@pytest.mark.parametrize("name", ["lm_head.weight", "layers.0.hidden_norm.weight", "norm.weight"])
def test_a_tensor_that_is_missing_is_named(name: str, model: Path, tmp_path: Path) -> None:
    config = speculators.config()
    tensors = speculators.tensors(config)
    del tensors[name]
    with pytest.raises(UserError, match=name):
        load(tmp_path, model, config, tensors)


def test_tensors_of_training_are_passed_over(model: Path, tmp_path: Path) -> None:
    config = speculators.config()
    tensors = speculators.tensors(config) | {"verifier_norm.weight": torch.ones(32)}
    assert load(tmp_path, model, config, tensors).taps
