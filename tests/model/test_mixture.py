"""Mixtures of experts: what is computed, for whom, and that company changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors.torch import save_file
from test_block import Chain, Request
from torch import Tensor

from gardener.errors import UserError
from gardener.model.architecture import Architecture
from gardener.model.checkpoint.slices import Slice
from gardener.model.checkpoint.split import split
from gardener.model.kernels.exact import Exact
from gardener.model.mixture import Experts, Router
from gardener.stages.load import load_stage

KINDS = ("mixtral", "qwen3-moe")
WIDE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "moe_intermediate_size": 128,
}
"""Sizes at which kernels choose their order of summing by the number of rows."""


class _Expert:
    """Adds its number. Counts its rows."""

    nbytes = 3

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows: list[int] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return x + self.number


class _Gate:
    """The first columns of a row are its scores."""

    nbytes, spread = 5, 0.0

    def __init__(self, experts: int) -> None:
        self._experts = experts

    def __call__(self, x: Tensor) -> Tensor:
        return x[:, : self._experts]


def _mixture(count: int, chosen: int) -> tuple[Experts, list[_Expert]]:
    experts = [_Expert(number) for number in range(count)]
    router = Router(_Gate(count), chosen, normalised=True)
    return Experts(router, experts, torch.device("cpu")), experts


def test_an_expert_is_called_once_for_all_its_rows_and_not_without_any() -> None:
    mixture, experts = _mixture(4, 2)
    x = torch.tensor([[9.0, 9, 0, 0, 1], [0, 9, 9, 0, 2], [9, 9, 0, 0, 3]])
    made = mixture(x)
    assert [expert.rows for expert in experts] == [[2], [3], [1], []]
    torch.testing.assert_close(made, x + torch.tensor([[0.5], [1.5], [0.5]]))
    assert mixture.nbytes == 4 * 3 + 5


@pytest.mark.parametrize("count", [3, 17, 128])
def test_of_equal_experts_the_first_are_taken_whatever_rows_there_are(count: int) -> None:
    router = Router(_Gate(count), 2, normalised=False)
    for rows in (1, 2, 7, 64):
        routes = router(torch.zeros(rows, count))
        assert routes.experts.tolist() == [[0, 1]] * rows
        assert torch.equal(routes.shares, torch.full((rows, 2), 1 / count))


def test_the_order_of_a_sum_leaves_no_trace_in_an_exact_layer() -> None:
    chance = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(count, 4096, generator=chance) for count in (16, 8))
    order = torch.randperm(4096, generator=chance)
    assert torch.equal(Exact(weight[:, order], None)(x[:, order]), Exact(weight, None)(x))
    bias = torch.randn(16, generator=chance)
    plain = F.linear(x, weight, bias)
    torch.testing.assert_close(Exact(weight, bias)(x), plain, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "quant"),
    [
        ("bfloat16", "none"),
        ("float16", "none"),
        ("float32", "llm-int8"),
        ("float32", "nf4"),
        ("bfloat16", "llm-int8"),
        ("bfloat16", "nf4"),
    ],
)
def test_a_row_does_not_mind_company(kind: str, dtype: str, quant: str, tmp_path: Path) -> None:
    """Bit for bit: the root alone, or with trees of 3 and of 40 rows in the same pass."""
    tiny.make(kind, tmp_path, **WIDE)
    results = []
    for more in (0, 3, 40):
        request, chain = Request(4), Chain(tmp_path, dtype=dtype, quant=quant)
        chain.run(request.prompt(0, 9))
        prompt_end = request.prompt(9, 10)
        tree = [request.segment(more)[0]] if more else []
        results.append(chain.run(prompt_end, *tree)[0])
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def _rounded(model: Any) -> None:
    """Do to the weights of the layers what 4 bits do to them."""
    for name, weights in model.named_parameters():
        if "experts" in name or name.endswith("_proj.weight"):
            for weight in weights.data if weights.dim() == 3 else [weights.data]:
                small = quantize_4bit(weight, blocksize=64, quant_type="nf4")
                weight.copy_(dequantize_4bit(*small))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("quant", "within"), [("llm-int8", 0.2), ("nf4", 0.05)])
def test_quantised_experts(kind: str, quant: str, within: float, tmp_path: Path) -> None:
    """Where a row goes through all of them, so that no rounding can choose others."""
    model = tiny.make(kind, tmp_path, **WIDE, num_experts=6, num_experts_per_tok=6)
    request, chain, plain = Request(3), Chain(tmp_path, 2, quant=quant), Chain(tmp_path, 2)
    (got,) = chain.run(request.prompt(0, 10))
    if quant == "nf4":
        _rounded(model)
    expected = tiny.logits(model, request.tokens)
    assert (got - expected).square().mean() < within**2 * expected.square().mean()
    for small, large in zip(chain.stages, plain.stages, strict=True):
        assert small.memory < large.memory / 2


@pytest.mark.parametrize("kind", KINDS)
def test_stage_folders_compute_what_the_source_computes(kind: str, tmp_path: Path) -> None:
    model = tiny.make(kind, tmp_path / "model")
    cut = [Slice(0, 1, 4), Slice(1, 3, 4), Slice(3, 4, 4)]
    split(tmp_path / "model", cut, tmp_path / "out")
    chain, request = Chain(tmp_path / "model", 3), Request(2)
    for number, stage in enumerate(chain.stages, 1):
        part = load_stage(tmp_path / "out" / f"stage-{number}")
        assert (part.slice, part.fingerprint) == (stage.slice, stage.fingerprint)
        stage.passes.blocks = part.passes.blocks
    (got,) = chain.run(request.prompt(0, 10))
    torch.testing.assert_close(got, tiny.logits(model, request.tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_experts_that_are_stored_in_one_tensor(kind: str, tmp_path: Path) -> None:
    """As transformers holds them, and reads them too."""
    model = tiny.make(kind, tmp_path)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert "model.layers.0.mlp.experts.gate_up_proj" in tensors
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    request = Request(2)
    (got,) = Chain(tmp_path, 2).run(request.prompt(0, 10))
    torch.testing.assert_close(got, tiny.logits(model, request.tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("kind", "changes", "what"),
    [
        ("mixtral", {"num_experts_per_tok": 7}, "num_experts_per_tok is 7, of 6 experts"),
        ("qwen3-moe", {"num_experts_per_tok": 0}, "num_experts_per_tok is 0, of 10 experts"),
        ("qwen3-moe", {"decoder_sparse_step": 0}, "decoder_sparse_step is 0 .*>= 1"),
        ("qwen3-moe", {"num_local_experts": "x"}, "num_local_experts is 'x' .expected int"),
    ],
)
def test_a_config_that_makes_no_sense_is_named(
    kind: str, changes: dict[str, Any], what: str, tmp_path: Path
) -> None:
    tiny.make(kind, tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=what):
        Architecture.read(tmp_path)
