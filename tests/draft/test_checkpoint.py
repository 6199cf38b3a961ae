"""Draft heads from files: what is read, what is borrowed from the target, and what is refused."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import heads
import pytest
import tiny
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from torch import Tensor

from gardener.decoding.tree import Guess, Tree
from gardener.draft.calibration import Calibration
from gardener.draft.eagle import Eagle1, Eagle3
from gardener.draft.eagle_config import TAPS
from gardener.draft.eagle_files import load_eagle
from gardener.draft.incremental import Incremental
from gardener.errors import UserError
from gardener.model.tensors import pack

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
LAYERS, WIDTH, VOCAB, DRAFT = 8, 32, tiny.VOCAB, 30
THREE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLMEagle3"],
    "num_key_value_heads": 2,
    "draft_vocab_size": DRAFT,
}

Config: TypeAlias = dict[str, Any]
Tensors: TypeAlias = dict[str, Tensor]
Edit: TypeAlias = Callable[[Tensors], Tensors]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder, num_hidden_layers=LAYERS)
    return folder


def one(**more: Any) -> tuple[Config, Tensors]:
    config = heads.config(**more)
    return config, heads.eagle1_tensors(config)


def three(**more: Any) -> tuple[Config, Tensors]:
    config = heads.config(**{**THREE, **more})
    return config, heads.eagle3_tensors(config, taps=3)


def narrow() -> tuple[Config, Tensors]:
    """An EAGLE-3 head of half the target's width, which therefore brings all that it needs."""
    config, tensors = three(hidden_size=WIDTH // 2, target_hidden_size=WIDTH)
    source = torch.Generator().manual_seed(3)
    tensors["fc.weight"] = torch.randn(WIDTH // 2, 3 * WIDTH, generator=source)
    tensors["embed_tokens.weight"] = torch.randn(VOCAB, WIDTH // 2, generator=source)
    return config, tensors


MAKERS: dict[str, Callable[..., tuple[Config, Tensors]]] = {"eagle1": one, "eagle3": three}


def without(*names: str) -> Edit:
    return lambda tensors: {name: t for name, t in tensors.items() if name not in names}


def plus(**more: Tensor) -> Edit:
    """Names with `__` for dots."""
    return lambda tensors: tensors | {name.replace("__", "."): t for name, t in more.items()}


def renamed(old: str, new: str) -> Edit:
    return lambda tensors: {name.replace(old, new): t for name, t in tensors.items()}


def load(folder: Path, model: Path) -> Eagle1 | Eagle3:
    return load_eagle(folder, model, dtype="float32", device="cpu")


def saved(
    folder: Path, model: Path, config: Config, tensors: Tensors, pickled: bool = False
) -> Eagle1 | Eagle3:
    """Written to `folder`, and read back."""
    return load(heads.write(folder, config, tensors, pickled), model)


def guesses(head: Eagle1 | Eagle3, seed: int = 5) -> list[tuple[Guess, ...]]:
    """What it says after the prompt, on random features, and after a guess below it."""
    draft = Incremental(head, Calibration(), width=6).open(PROMPT)
    source = torch.Generator().manual_seed(seed)
    features = torch.randn(len(PROMPT) - 1, len(head.taps) * WIDTH, generator=source)
    draft.settle((), [pack(part) for part in features.chunk(len(head.taps), -1)])
    tree = Tree(len(PROMPT) - 1, PROMPT[-1])
    below = tree.graft(tree.root, 7, 0.0)
    return heads.said(draft.expand([tree.lineage(tree.root), tree.lineage(below.id)]))


def same(one: list[tuple[Guess, ...]], other: list[tuple[Guess, ...]]) -> bool:
    """Weights may lie elsewhere in memory, so sums may be rounded in another way."""
    a, b = ([guess for told in guesses for guess in told] for guesses in (one, other))
    p, q = (torch.tensor([guess.probability for guess in side]) for side in (a, b))
    tokens = [guess.token for guess in a] == [guess.token for guess in b]
    return tokens and torch.allclose(p, q, atol=1e-5)


# --- what is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_pickled_and_safetensors_heads_guess_the_same(
    kind: str, model: Path, tmp_path: Path
) -> None:
    config, tensors = MAKERS[kind]()
    safe = saved(tmp_path / "safe", model, config, tensors)
    pickled = saved(tmp_path / "pickled", model, config, tensors, pickled=True)
    assert [file.name for file in (tmp_path / "pickled").glob("*.bin")] == ["pytorch_model.bin"]
    assert same(guesses(safe), guesses(pickled))
    assert not same(guesses(safe), guesses(safe, seed=6))  # so they could differ


@pytest.mark.parametrize("kind", MAKERS)
def test_a_head_saved_by_an_old_torch_guesses_the_same(
    kind: str, model: Path, tmp_path: Path
) -> None:
    config, tensors = MAKERS[kind]()
    new = saved(tmp_path, model, config, tensors, pickled=True)
    told = guesses(new)
    file = tmp_path / "pytorch_model.bin"
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    assert same(guesses(load(tmp_path, model)), told)


def test_the_tensors_tell_which_eagle_it_is(model: Path, tmp_path: Path) -> None:
    assert isinstance(saved(tmp_path / "one", model, *one()), Eagle1)
    assert isinstance(saved(tmp_path / "three", model, *three()), Eagle3)
    config, tensors = one(**THREE)  # what its config says of classes and vocabularies is no matter
    assert isinstance(saved(tmp_path / "odd", model, config, tensors), Eagle1)


def test_both_names_of_the_layer_guess_the_same(model: Path, tmp_path: Path) -> None:
    config, tensors = three()
    published = saved(tmp_path / "midlayer", model, config, tensors)
    other = renamed("midlayer.", "layers.0.")(tensors)
    assert "layers.0.hidden_norm.weight" in other
    assert same(guesses(saved(tmp_path / "layers", model, config, other)), guesses(published))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_prefix_on_all_names_changes_nothing(kind: str, model: Path, tmp_path: Path) -> None:
    config, tensors = MAKERS[kind]()
    bare = saved(tmp_path / "bare", model, config, tensors)
    long = {name if name == "lm_head.weight" else f"model.{name}": t for name, t in tensors.items()}
    assert same(guesses(saved(tmp_path / "long", model, config, long)), guesses(bare))


def test_tensors_that_say_nothing_new_are_passed_over(model: Path, tmp_path: Path) -> None:
    config, tensors = three()
    told = guesses(saved(tmp_path / "as-it-is", model, config, tensors))
    more = plus(midlayer__self_attn__rotary_emb__inv_freq=torch.ones(4))(without("t2d")(tensors))
    assert same(guesses(saved(tmp_path / "other", model, config, more)), told)


def test_the_bias_of_fc_is_as_the_config_says(model: Path, tmp_path: Path) -> None:
    config, tensors = one(bias=False)
    bare = guesses(saved(tmp_path / "none", model, config, tensors))
    zero = plus(fc__bias=torch.zeros(WIDTH))(tensors)
    assert same(guesses(saved(tmp_path / "zero", model, *(config | {"bias": True}, zero))), bare)
    some = plus(fc__bias=torch.linspace(-1, 1, WIDTH))(tensors)
    assert not same(guesses(saved(tmp_path / "x", model, *(config | {"bias": True}, some))), bare)


def test_biases_of_the_attention_are_added(model: Path, tmp_path: Path) -> None:
    config, tensors = three()
    bare = guesses(saved(tmp_path / "none", model, config, tensors))
    sizes = {"q": WIDTH, "k": WIDTH // 2, "v": WIDTH // 2}
    for scale in (0.0, 1.0):
        more = {
            f"midlayer.self_attn.{n}_proj.bias": scale * torch.ones(k) for n, k in sizes.items()
        }
        told = guesses(saved(tmp_path / str(scale), model, config, tensors | more))
        assert same(told, bare) == (scale == 0.0)


# --- taps ------------------------------------------------------------------------------------


def test_taps_are_those_of_the_config_or_the_usual_three(model: Path, tmp_path: Path) -> None:
    config, tensors = three()
    assert saved(tmp_path / "usual", model, config, tensors).taps == (2, LAYERS // 2, LAYERS - 3)
    stated = config | {TAPS: [0, 3, 7]}
    assert saved(tmp_path / "stated", model, stated, tensors).taps == (0, 3, 7)
    nested = config | {"eagle_config": {TAPS: [2, 4, 7]}}
    assert saved(tmp_path / "nested", model, nested, tensors).taps == (2, 4, 7)


def test_ids_that_begin_with_1_are_layers_whose_output_is_meant(
    model: Path, tmp_path: Path
) -> None:
    """So SpecForge, SGLang and ModelOpt number them; ours are taps, whatever they begin with."""
    config, tensors = three()
    for name, more in (
        ("flat", {TAPS: [1, 3, 4]}),
        ("nested", {"eagle_config": {TAPS: [1, 3, 4]}}),
    ):
        assert saved(tmp_path / name, model, config | more, tensors).taps == (2, 4, 5)
    ours = config | {TAPS: [1, 3, 4], "target_fingerprint": "0:0"}
    assert saved(tmp_path / "ours", model, ours, tensors).taps == (1, 3, 4)


def test_only_heads_of_our_own_tap_the_end(model: Path, tmp_path: Path) -> None:
    """What others mean by it is not normed."""
    config, tensors = three(**{TAPS: [0, 3, LAYERS]})
    with pytest.raises(UserError, match="what the last layer, 8, gives before the last norm"):
        saved(tmp_path, model, config, tensors)
    ours = config | {"target_fingerprint": "0:0"}
    assert saved(tmp_path, model, ours, tensors).taps == (0, 3, LAYERS)


def test_eagle1_taps_what_the_last_layer_gives(model: Path, tmp_path: Path) -> None:
    assert saved(tmp_path, model, *one()).taps == (LAYERS,)


# --- what is borrowed ------------------------------------------------------------------------


def test_an_lm_head_that_is_left_out_is_the_targets(model: Path, tmp_path: Path) -> None:
    config, tensors = three()
    own = guesses(saved(tmp_path / "own", model, config, tensors))
    borrowed = guesses(saved(tmp_path / "less", model, config, without("lm_head.weight")(tensors)))
    assert not same(borrowed, own)
    kept = tensors["d2t"] + torch.arange(DRAFT)
    matrix = load_file(model / "model.safetensors")["lm_head.weight"]
    copied = plus(lm_head__weight=matrix[kept].clone())(tensors)
    assert same(guesses(saved(tmp_path / "copied", model, config, copied)), borrowed)
    assert {guess.token for told in borrowed for guess in told} <= set(kept.tolist())


def test_without_a_draft_vocabulary_all_tokens_are_the_targets(model: Path, tmp_path: Path) -> None:
    config, tensors = three()
    del config["draft_vocab_size"]
    plain = without("lm_head.weight", "d2t", "t2d")(tensors)
    borrowed = guesses(saved(tmp_path / "less", model, config, plain))
    matrix = load_file(model / "model.safetensors")["lm_head.weight"]
    copied = plus(lm_head__weight=matrix)(plain)
    assert same(guesses(saved(tmp_path / "copied", model, config, copied)), borrowed)
    whole = plus(d2t=torch.zeros(VOCAB, dtype=torch.long))(plain)
    assert same(guesses(saved(tmp_path / "whole", model, config, whole)), borrowed)


@pytest.mark.parametrize("kind", MAKERS)
def test_an_embedding_that_is_left_out_is_the_targets(
    kind: str, model: Path, tmp_path: Path
) -> None:
    config, tensors = MAKERS[kind]()
    borrowed = guesses(
        saved(tmp_path / "less", model, config, without("embed_tokens.weight")(tensors))
    )
    table = load_file(model / "model.safetensors")["model.embed_tokens.weight"]
    for name, own in (("copied", table), ("other", table.flip(0).contiguous())):
        told = guesses(
            saved(tmp_path / name, model, config, plus(embed_tokens__weight=own)(tensors))
        )
        assert same(told, borrowed) == (name == "copied")


def test_a_tied_target_lends_its_embedding_as_the_head(tmp_path: Path) -> None:
    tiny.make("smollm", tmp_path / "model", num_hidden_layers=LAYERS)
    config, tensors = three()
    less = without("lm_head.weight")(tensors)
    borrowed = guesses(saved(tmp_path / "less", tmp_path / "model", config, less))
    table = load_file(tmp_path / "model" / "model.safetensors")["model.embed_tokens.weight"]
    kept = tensors["d2t"] + torch.arange(DRAFT)
    copied = plus(lm_head__weight=table[kept].clone())(tensors)
    assert same(guesses(saved(tmp_path / "full", tmp_path / "model", config, copied)), borrowed)


def test_a_narrow_head_brings_all_that_it_needs(model: Path, tmp_path: Path) -> None:
    head = saved(tmp_path, model, *narrow())
    assert head.shape.width == WIDTH // 2
    assert all(len(told) == 6 for told in guesses(head))


# --- what is refused -------------------------------------------------------------------------


@dataclass(frozen=True)
class Misfit:
    """A head that was right before `edit`, and what is said of it."""

    make: Callable[..., tuple[Config, Tensors]]
    why: str
    config: Config = field(default_factory=dict)
    edit: Edit = lambda tensors: tensors


def taps(why: str, *stated: int) -> Misfit:
    return Misfit(three, f"is {why}, but must ascend within a model of 8", {TAPS: [*stated]})


def d2t(at: int, offset: int) -> Edit:
    def edit(tensors: Tensors) -> Tensors:
        changed = tensors["d2t"].clone()
        changed[at] = offset
        return tensors | {"d2t": changed}

    return edit


def changed(name: str, dtype: torch.dtype) -> Edit:
    return lambda tensors: tensors | {name: tensors[name].to(dtype)}


GROUPS_OF_THREE = {"num_key_value_heads": 3}

MISFITS = {
    "width-of-eagle1": Misfit(one, "hidden_size is 16, the model's is 32", {"hidden_size": 16}),
    "width-of-eagle3": Misfit(three, "hidden_size is 16, the model's is 32", {"hidden_size": 16}),
    "width-of-target": Misfit(
        three, "target_hidden_size is 48, the model's is 32", {"target_hidden_size": 48}
    ),
    "vocabulary": Misfit(one, "vocab_size is 60, the model's is 61", {"vocab_size": 60}),
    "vocabulary-of-eagle3": Misfit(three, "vocab_size is 62, the model's", {"vocab_size": 62}),
    "layers": Misfit(one, "num_hidden_layers is 2, only 1 is", {"num_hidden_layers": 2}),
    "layers-of-eagle3": Misfit(three, "num_hidden_layers is 2", {"num_hidden_layers": 2}),
    "induction-in-eagle1": Misfit(
        one,
        "induction_key_value_heads is 1, but EAGLE-1 has no such heads",
        {"induction_key_value_heads": 1},
    ),
    "left-over": Misfit(
        one,
        r"tensors that are not known: layers\.0\.input_layernorm\.weight, norm\.weight;",
        edit=plus(layers__0__input_layernorm__weight=torch.ones(WIDTH), norm__weight=torch.ones(1)),
    ),
    "left-over-in-eagle3": Misfit(
        three, "not known: fc_norm.1.weight;", edit=plus(fc_norm__1__weight=torch.ones(WIDTH))
    ),
    "second-layer": Misfit(
        one,
        "not known: layers.1.mlp.up_proj.weight",
        edit=plus(layers__1__mlp__up_proj__weight=torch.ones(1)),
    ),
    "d2t-beyond": Misfit(
        three,
        r"d2t\[29\] is 32, which makes draft token 29 the model's token 61, and that has",
        edit=d2t(-1, 32),
    ),
    "d2t-below": Misfit(
        three,
        r"d2t\[2\] is -3, which makes draft token 2 the model's token -1, and that has tokens 0 to",
        edit=d2t(2, -3),
    ),
    "d2t-far-beyond": Misfit(three, r"d2t\[1\] is 9223372036854775807", edit=d2t(1, 2**63 - 1)),
    "d2t-far-below": Misfit(three, r"d2t\[29\] is -9223372036854775808", edit=d2t(29, -(2**63))),
    "d2t-twice": Misfit(
        three,
        "d2t makes two draft tokens, 0 and 1, the model's token 0;",
        edit=lambda tensors: tensors | {"d2t": -torch.arange(DRAFT)},
    ),
    "d2t-float": Misfit(
        three,
        "d2t holds float32, not whole numbers;",
        edit=lambda tensors: tensors | {"d2t": tensors["d2t"].float()},
    ),
    "d2t-bool": Misfit(
        three,
        "d2t holds bool, not whole numbers;",
        edit=lambda tensors: tensors | {"d2t": tensors["d2t"].bool()},
    ),
    "heads-and-groups": Misfit(
        one, "num_attention_heads is 4, no multiple of num_key_value_heads, 3;", GROUPS_OF_THREE
    ),
    "whole-numbers": Misfit(
        three, "fc.weight holds int64, not one of float32", edit=changed("fc.weight", torch.long)
    ),
    "eight-bits": Misfit(
        three,
        "midlayer.mlp.down_proj.weight holds float8_e4m3fn, not one of",
        edit=changed("midlayer.mlp.down_proj.weight", torch.float8_e4m3fn),
    ),
    "embedding-of-whole-numbers": Misfit(
        one, "embed_tokens.weight holds int32", edit=changed("embed_tokens.weight", torch.int32)
    ),
    "not-a-number": Misfit(
        three,
        "norm.weight holds values that are no finite numbers in float32;",
        edit=plus(norm__weight=torch.full((WIDTH,), float("nan"))),
    ),
    "infinite": Misfit(
        one, "fc.bias holds values", edit=plus(fc__bias=torch.full((WIDTH,), float("inf")))
    ),
    "longrope-of-another-length": Misfit(
        three,
        "its rotary settings make no sense",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
                "short_factor": [1.0] * 4,
                "long_factor": [1.0],
            }
        },
    ),
    "no-d2t": Misfit(three, "draft_vocab_size is 30, but there is no d2t", edit=without("d2t")),
    "taps-descend": taps(r"\[5, 2, 7\]", 5, 2, 7),
    "taps-repeat": taps(r"\[2, 2, 7\]", 2, 2, 7),
    "taps-beyond": taps(r"\[2, 4, 9\]", 2, 4, 9),
    "taps-below": taps(r"\[-1, 4, 8\]", -1, 4, 8),
    "taps-nested": Misfit(
        three, r"is \[7, 4, 1\], but must ascend", {"eagle_config": {TAPS: [7, 4, 1]}}
    ),
    "no-layer": Misfit(
        three, r"no layer named midlayer or layers\.0", edit=renamed("midlayer", "decoder")
    ),
    "both-norms-before-fc": Misfit(
        three,
        "norm_before_fc and fc_norm are both true, and only one can be",
        {"eagle_config": {"norm_before_fc": True}, "fc_norm": True},
    ),
    "norm-in-eagle1": Misfit(
        one, "norm_output is true, but EAGLE-1 has no such norm", {"norm_output": True}
    ),
    "bias-of-attention": Misfit(
        three,
        r"attention_bias is true, but there is no midlayer\.self_attn\.q_proj\.bias",
        {"attention_bias": True},
    ),
    "narrow-without-head": Misfit(
        narrow,
        "no lm_head, and hidden_size 16 is not the model's 32",
        edit=without("lm_head.weight"),
    ),
    "narrow-without-embedding": Misfit(
        narrow,
        "no embed_tokens, and the model's are of another width",
        edit=without("embed_tokens.weight"),
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_head_that_does_not_fit_is_refused(name: str, model: Path, tmp_path: Path) -> None:
    misfit = MISFITS[name]
    config, tensors = misfit.make(**misfit.config)
    with pytest.raises(UserError, match=misfit.why) as refused:
        saved(tmp_path, model, config, misfit.edit(tensors))
    said = str(refused.value)
    assert said.startswith(f"the head in {tmp_path} does not fit the model in {model}: ")
    assert said.endswith("give --head one that was trained for this model")


@pytest.mark.parametrize("maker", [one, three, narrow])
def test_the_same_heads_unharmed_are_read(
    maker: Callable[..., tuple[Config, Tensors]], model: Path, tmp_path: Path
) -> None:
    config, tensors = maker()
    kept = config | {"fc_norm": False, "norm_output": None, "vocab_size": VOCAB}
    assert guesses(saved(tmp_path, model, kept, tensors))[0]


DAMAGES = {
    "no-bias": Misfit(one, r"model\.fc\.bias is missing", edit=without("fc.bias")),
    "no-norm": Misfit(three, r"model\.norm\.weight is missing", edit=without("norm.weight")),
    "no-projection": Misfit(
        three, "o_proj.weight is missing", edit=without("midlayer.self_attn.o_proj.weight")
    ),
    "fewer-taps": Misfit(
        three, r"fc\.weight .* has shape \(32, 96\), config\.json says \(32, 64\)", {TAPS: [2, 5]}
    ),
    "shorter-d2t": Misfit(
        three, r"d2t .* has shape \(9,\)", edit=plus(d2t=torch.zeros(9, dtype=torch.long))
    ),
    "smaller-head": Misfit(
        three,
        r"lm_head\.weight .* has shape \(29, 32\)",
        edit=plus(lm_head__weight=torch.ones(29, 32)),
    ),
    "smaller-embedding": Misfit(
        one,
        r"embed_tokens\.weight .* has shape",
        edit=plus(embed_tokens__weight=torch.ones(60, 32)),
    ),
    "one-width": Misfit(
        three,
        r"q_proj\.weight .* has shape \(32, 32\), config\.json says \(32, 64\)",
        edit=plus(midlayer__self_attn__q_proj__weight=torch.ones(32, 32)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_tensors_that_are_missing_or_of_another_shape_are_named(
    name: str, model: Path, tmp_path: Path
) -> None:
    damage = DAMAGES[name]
    config, tensors = damage.make(**damage.config)
    with pytest.raises(UserError, match=damage.why):
        saved(tmp_path, model, config, damage.edit(tensors))


def test_offsets_may_be_negative_within_the_vocabulary(model: Path, tmp_path: Path) -> None:
    config, tensors = three()
    told = guesses(saved(tmp_path / "up", model, config, tensors))
    order = torch.arange(DRAFT).flip(0)
    down = (tensors["d2t"] + torch.arange(DRAFT))[order] - torch.arange(DRAFT)
    assert down.min() < 0
    for dtype in (torch.int64, torch.int32, torch.int16):
        turned = {"d2t": down.to(dtype), "lm_head.weight": tensors["lm_head.weight"][order]}
        assert same(guesses(saved(tmp_path / "down", model, config, tensors | turned)), told)


# --- configs that say nonsense ---------------------------------------------------------------


@dataclass(frozen=True)
class Nonsense:
    """A field of the config, and what is said of it."""

    field: str
    value: Any
    why: str


def rope(value: Any, why: str) -> list[Nonsense]:
    return [Nonsense(name, value, why) for name in ("rope_scaling", "rope_parameters")]


NONSENSE = [
    Nonsense(TAPS, 5, r"is 5 \(expected array"),
    Nonsense(TAPS, ["a", 2], r"is \['a', 2\] \(expected int, got str"),
    Nonsense(TAPS, [True, 2], "expected int, got bool"),
    Nonsense(TAPS, [*range(9)], "of length <= 8"),
    Nonsense("eagle_config", [1], r"is \[1\] \(expected object"),
    Nonsense("eagle_config", {TAPS: "x"}, "expected array"),
    Nonsense("draft_vocab_size", "x", r"is 'x' \(expected int"),
    Nonsense("draft_vocab_size", 0, "is 0 .*>= 1"),
    Nonsense("vocab_size", None, r"is None \(expected int, got null"),
    Nonsense("vocab_size", float("inf"), r"is inf \(expected int, got float"),
    Nonsense("hidden_size", "32", r"is '32' \(expected int, got str"),
    Nonsense("hidden_size", 10**400, r"is 1000.*\.\.\..*0 \(expected int <= "),
    Nonsense("target_hidden_size", [32], "expected int"),
    Nonsense("intermediate_size", 40.0, "expected int, got float"),
    Nonsense("num_attention_heads", 0, r"is 0 \(expected int >= 1"),
    Nonsense("num_attention_heads", -4, r"is -4 \(expected int >= 1"),
    Nonsense("num_key_value_heads", 0, "is 0 .*>= 1"),
    Nonsense("induction_key_value_heads", -1, "is -1 .*>= 0"),
    Nonsense("num_hidden_layers", 10**9, "is 1000000000 .*<= 1024"),
    Nonsense("head_dim", "x", "expected int"),
    Nonsense("max_position_embeddings", "x", "expected int"),
    Nonsense("rms_norm_eps", "x", "expected float"),
    Nonsense("rms_norm_eps", float("nan"), "is nan .*>= 0"),
    Nonsense("rope_theta", "x", "expected float"),
    Nonsense("rope_theta", 0, "is 0 .*> 0"),
    *rope(5, "expected object"),
    *rope([1], "expected object"),
    *rope({"rope_type": 5}, "expected str"),
    *rope({"rope_type": "linear", "factor": "a"}, "expected float"),
    *rope({"rope_type": "longrope", "long_factor": [1.0, "x"]}, "expected float"),
    Nonsense("hidden_act", 5, "expected str"),
    Nonsense("attention_bias", "yes", "expected bool"),
    Nonsense("bias", "no", r"is 'no' \(expected bool"),
    Nonsense("fc_norm", 1, "expected bool"),
]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda n: f"{n.field}={n.value!r:.30}")
def test_a_field_of_the_wrong_kind_is_named(
    nonsense: Nonsense, model: Path, tmp_path: Path
) -> None:
    config, tensors = three()
    config[nonsense.field] = nonsense.value
    with pytest.raises(UserError, match=f"{nonsense.field} .*{nonsense.why}") as refused:
        saved(tmp_path, model, config, tensors)
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / 'config.json'}: {nonsense.field} is ")
    assert said.endswith("mend the file, or give --head another head")
    assert len(said) < 400


UNREADABLE: dict[str, tuple[Config, str]] = {
    "odd-heads": ({"head_dim": 7}, "even"),
    "scaling-without-factor": ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
    "scaling-without-value": (
        {"rope_scaling": {"rope_type": "linear", "factor": None}},
        r"config\.json",
    ),
    "unknown-scaling": ({"rope_parameters": {"rope_type": "oak"}}, "'oak' is not supported"),
    "activation": ({"hidden_act": "tanh"}, "hidden_act is 'tanh': only silu, "),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_transformers_cannot_read_is_named(name: str, model: Path, tmp_path: Path) -> None:
    more, why = UNREADABLE[name]
    config, tensors = three()
    with pytest.raises(UserError, match=why) as refused:
        saved(tmp_path, model, config | more, tensors)
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / 'config.json'} cannot be read (")
    assert said.endswith("mend the file, or give --head another head")


def test_nobody_is_asked_whether_to_run_code(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[object]()

    def ask(*question: object) -> str:
        asked.extend(question)
        return "n"

    monkeypatch.setattr("builtins.input", ask)
    config, tensors = three(model_type="oak", auto_map={"AutoConfig": "configuration.Oak"})
    (tmp_path / "configuration.py").write_text("raise AssertionError('run')")
    with pytest.raises(UserError, match=r"model_type is 'oak'"):
        saved(tmp_path, model, config, tensors)
    assert asked == []


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_json_without_end_is_refused(name: str, model: Path, tmp_path: Path) -> None:
    target = Path(shutil.copytree(model, tmp_path / "model"))
    _tokenizer(target, "a")
    head = heads.write(tmp_path / "head", *three(), pickled=False)
    (head / name).write_text('{"a": ' + "[" * 100_000)
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        load(head, target)


def _tokenizer(folder: Path, *words: str) -> None:
    numbers = {word: number for number, word in enumerate(words)}
    Tokenizer(models.WordLevel(numbers, unk_token=words[0])).save(str(folder / "tokenizer.json"))


def test_a_tokenizer_with_other_tokens_is_refused(model: Path, tmp_path: Path) -> None:
    target = Path(shutil.copytree(model, tmp_path / "model"))
    _tokenizer(target, "a", "b")
    head = heads.write(tmp_path / "head", *three(), pickled=False)
    load(head, target)  # has no tokenizer of its own
    _tokenizer(head, "a", "b", "c")
    load(head, target)  # the same ones, and one more
    _tokenizer(head, "a", "c")
    why = "its tokenizer has other tokens than the model's: its token 1 is 'c', the model's is 'b'"
    with pytest.raises(UserError, match=why):
        load(head, target)
    (target / "tokenizer.json").unlink()
    load(head, target)  # nothing to compare with


@pytest.mark.parametrize("content", ["BPE", [1], 5])
def test_a_tokenizer_without_a_model_is_named(content: Any, model: Path, tmp_path: Path) -> None:
    target = Path(shutil.copytree(model, tmp_path / "model"))
    _tokenizer(target, "a")
    head = heads.write(tmp_path / "head", *three(), pickled=False)
    (head / "tokenizer.json").write_text(json.dumps({"model": content}))
    with pytest.raises(UserError, match=r"cannot be read \(.*: mend it, or take it away") as no:
        load(head, target)
    assert str(no.value).startswith(str(head / "tokenizer.json"))


# --- files that are no heads -----------------------------------------------------------------


class Trap:
    """Makes a folder when it is unpickled carelessly."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def _trapped(kind: str, file: Path, content: dict[str, Any]) -> None:
    if kind == "bare":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == "archive")


@pytest.mark.parametrize("kind", ["archive", "legacy", "bare"])
def test_a_pickle_with_code_is_refused_and_not_run(kind: str, model: Path, tmp_path: Path) -> None:
    config, tensors = one()
    head = heads.write(tmp_path / "head", config, tensors, pickled=True)
    file = head / "pytorch_model.bin"
    _trapped(kind, file, tensors | {"layers.0.extra": Trap(tmp_path / "sprung")})
    with pytest.raises(UserError, match=r"pytorch_model\.bin cannot be read"):
        load(head, model)
    assert not (tmp_path / "sprung").exists()


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps({"x": Trap(tmp_path / "sprung")}))
    assert (tmp_path / "sprung").is_dir()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"version https://git-lfs.github.com/spec/v1"]
)
def test_files_that_hold_no_tensors_are_refused(
    name: str, content: bytes, model: Path, tmp_path: Path
) -> None:
    head = heads.write(tmp_path, *one(), pickled=name.endswith("bin"))
    (head / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} (cannot be read|is a git-lfs pointer)"):
        load(head, model)


def test_a_file_that_breaks_off_is_refused(model: Path, tmp_path: Path) -> None:
    for pickled, name in ((True, "pytorch_model.bin"), (False, "model.safetensors")):
        head = heads.write(tmp_path / name, *one(), pickled=pickled)
        data = (head / name).read_bytes()
        (head / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            load(head, model)


def test_a_pickle_of_something_else_is_refused(model: Path, tmp_path: Path) -> None:
    head = heads.write(tmp_path, *one(), pickled=True)
    torch.save([torch.ones(1)], head / "pytorch_model.bin")
    with pytest.raises(UserError, match="does not hold tensors by name"):
        load(head, model)


PLAIN = torch.ones(WIDTH, 2 * WIDTH)
ODD: dict[str, Callable[[], Tensor]] = {
    "sparse": PLAIN.to_sparse,
    "without-values": lambda: torch.empty(WIDTH, 2 * WIDTH, device="meta"),
}


@pytest.mark.parametrize("name", ["fc.weight", "embed_tokens.weight", "what.ever"])
@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_in_a_pickle_are_refused(
    kind: str, name: str, model: Path, tmp_path: Path
) -> None:
    config, tensors = one()
    head = heads.write(tmp_path, config, tensors | {name: ODD[kind]()}, pickled=True)
    with pytest.raises(UserError, match=f"{name} is sparse, quantised or without values"):
        load(head, model)


def test_a_pickle_with_names_that_are_no_text_is_refused(model: Path, tmp_path: Path) -> None:
    config, tensors = one()
    head = heads.write(tmp_path, config, tensors, pickled=True)
    named: dict[str | int, Tensor] = {1: torch.ones(1)}
    named.update(tensors)
    torch.save(named, head / "pytorch_model.bin")
    with pytest.raises(UserError, match="tensors that are not known: 1;"):
        load(head, model)


@pytest.mark.parametrize(
    "file",
    ["..", "", "nope.safetensors", "a\0b.safetensors", "a\0b", "x" * 300, "config.json", "folder"],
)
def test_an_index_that_leads_nowhere_is_refused(file: str, model: Path, tmp_path: Path) -> None:
    config, tensors = one()
    head = heads.write(tmp_path, config, tensors, pickled=False)
    (head / "folder").mkdir()
    (head / "model.safetensors").unlink()
    index = {"weight_map": dict.fromkeys(tensors, file)}
    (head / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"cannot be read|outside of it"):
        load(head, model)


def test_a_folder_without_config_or_weights_is_refused(model: Path, tmp_path: Path) -> None:
    head = heads.write(tmp_path, *one(), pickled=False)
    (head / "model.safetensors").unlink()
    with pytest.raises(UserError, match="there are no weights in"):
        load(head, model)
    (head / "config.json").write_text(json.dumps(heads.config(model_type="oak")))
    with pytest.raises(UserError, match=r"config\.json: model_type is 'oak'"):
        load(head, model)
    (head / "config.json").unlink()
    with pytest.raises(UserError, match=r"there is no config\.json"):
        load(head, model)
