"""Linear layers of a checkpoint in 4 and 8 bits: rounded here, or as the checkpoint has them."""

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from gardener.errors import UserError
from gardener.model.checkpoint.tensors import EMBEDDING, HEAD, Checkpoint
from gardener.model.kernels.beside import Beside
from gardener.model.kernels.grouped import Grouped
from gardener.model.kernels.rounding import rounded
from gardener.model.linear_reader import LinearReader

CPU = torch.device("cpu")
ATTENTION = "model.layers.0.self_attn."
QKV = {f"{ATTENTION}{part}_proj": rows for part, rows in (("q", 32), ("k", 16), ("v", 16))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.make("biased", tmp_path)
    return tmp_path


def reader(folder: Path, quant: str, dtype: torch.dtype = torch.float32) -> LinearReader:
    return LinearReader(Checkpoint(folder, dtype), dtype, CPU, quant)


def rows() -> Tensor:
    return torch.randn(5, 32, generator=torch.Generator().manual_seed(2))


def as_stored(stored: dict[str, Grouped]) -> object:
    """A `Checkpoint.grouped` of a checkpoint that has these."""

    def grouped(
        self: Checkpoint, name: str, quant: str, shape: tuple[int, int] | None = None
    ) -> Grouped | None:
        assert name not in stored or stored[name].shape == shape
        return stored.get(name)

    return grouped


@pytest.mark.parametrize(("quant", "within"), [("int4", 0.12), ("int8", 0.02)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_are_near_those_of_floats(
    folder: Path, quant: str, within: float, dtype: torch.dtype
) -> None:
    for parts, inputs in ((QKV, 32), ({"model.layers.0.mlp.down_proj": 32}, 48)):
        x = torch.randn(5, inputs, generator=torch.Generator().manual_seed(2)).to(dtype)
        got, expected = (
            reader(folder, each, dtype).fused(parts, inputs, True)(x).float()
            for each in (quant, "none")
        )
        assert 0 < (got - expected).norm() < within * expected.norm()


def test_what_is_stored_in_groups_goes_in_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reader(folder, "int4").fused(QKV, 32, True)(rows())
    checkpoint = Checkpoint(folder)
    stored = {f"{name}.weight": rounded(checkpoint.read(f"{name}.weight"), 4, 32) for name in QKV}
    monkeypatch.setattr(Checkpoint, "grouped", as_stored(stored))
    monkeypatch.setattr("gardener.model.linear_reader.rounded", None)
    assert torch.equal(reader(folder, "int4").fused(QKV, 32, True)(rows()), expected)


def test_parts_of_different_kinds_stand_side_by_side(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = (Checkpoint(folder).read(f"{name}.weight") for name in QKV)
    four = rounded(k, 4, 32)
    stored = {
        f"{ATTENTION}q_proj.weight": rounded(q, 4, 32),
        f"{ATTENTION}k_proj.weight": Grouped(
            4, 32, four.steps, four.scales, four.zeros, torch.full((16, 1), 0.25)
        ),
        f"{ATTENTION}v_proj.weight": rounded(v, 8, 16),
    }
    monkeypatch.setattr(Checkpoint, "grouped", as_stored(stored))
    layer = reader(folder, "int4").fused(QKV, 32, True)
    assert isinstance(layer, Beside)
    weight = torch.cat([each.widened() for each in stored.values()])
    bias = torch.cat([Checkpoint(folder).read(f"{name}.bias") for name in QKV])
    expected = torch.nn.functional.linear(rows(), weight, bias)
    assert (layer(rows()) - expected).norm() < 0.02 * expected.norm()


def test_experts_of_one_tensor_are_told_apart() -> None:
    weights = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(5))

    class Stacked(Checkpoint):
        def __init__(self) -> None: ...

        def read(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
            assert shape == weights.shape
            return weights

    read = LinearReader(Stacked(), torch.float32, CPU, "int8")
    for number in range(3):
        got = read.one_of(3, number, "experts.gate_up_proj", (24, 32))(rows())
        expected = rows() @ weights[number].T
        assert (got - expected).norm() < 0.02 * expected.norm()


def test_a_matrix_is_quantised_from_what_it_shares(folder: Path) -> None:
    table = Checkpoint(folder).read(EMBEDDING)
    plain = reader(folder, "none").matrix(HEAD, (61, 32), lambda: table)
    small = reader(folder, "int8").matrix(HEAD, (61, 32), lambda: table)
    assert small.nbytes < plain.nbytes
    assert 0 < (small(rows()) - plain(rows())).norm() < 0.02 * plain(rows()).norm()


def test_what_cannot_be_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="quant 'int3' is not one of none, int4, int8, nf4"):
        reader(folder, "int3")
    with pytest.raises(UserError, match=r"head\.weight has 40 inputs, and --quant int8 takes mul"):
        reader(folder, "int8").matrix(HEAD, (8, 40), lambda: torch.ones(8, 40))
    broken = torch.ones(8, 32)
    broken[3, 4] = torch.nan
    with pytest.raises(UserError, match=r"head\.weight holds values that are not numbers"):
        reader(folder, "int4").matrix(HEAD, (8, 32), lambda: broken)
