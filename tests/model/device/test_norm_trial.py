"""Norms whose bits tell of the pass are found out, and sizes of passes follow from it."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from gardener.model.architecture import Architecture
from gardener.model.device.norm_trial import Norm, Normed, norms_keep, norms_of
from gardener.model.device.sizes import FEW, ROWS
from gardener.model.kernels import machine
from gardener.model.norm import rms_norm
from gardener.stages import load

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> Architecture:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("qwen3", folder)
    read = Architecture.read(folder)
    return replace(read, width=1024, head_dim=64)


def summed(x: Tensor, weight: Tensor, eps: float, threads: Tensor) -> Tensor:
    """A norm, the squares of whose rows are added up by so many threads each [rows]."""
    wide = x.float()
    squares = wide.square()
    by_row = torch.stack(
        [
            sum((part.cumsum(-1)[..., -1] for part in row.chunk(int(count), -1)), torch.zeros(()))
            for row, count in zip(squares, threads, strict=True)
        ]
    )
    scale = torch.rsqrt(by_row / x.shape[-1] + eps)
    return (wide * scale.unsqueeze(-1) * weight).to(x.dtype)


def in_order(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return summed(x, weight, eps, torch.full((len(x),), 4))


def by_rows(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As torch shares out threads: fewer of them to a row where there are more rows."""
    return summed(x, weight, eps, torch.full((len(x),), max(16 // len(x), 1)))


def from_32(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return summed(x, weight, eps, torch.full((len(x),), 2 if len(x) >= 32 else 1))


def by_place(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return summed(x, weight, eps, torch.arange(len(x)) % 2 + 1)


def heads_by_rows(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return (by_rows if x.dim() == 3 else in_order)(x, weight, eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [rms_norm, in_order])
def test_norms_that_keep_to_one_order(
    norm: Norm, dtype: torch.dtype, architecture: Architecture
) -> None:
    assert norms_keep(architecture, dtype, CPU, (*FEW, *ROWS), norm)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    ("norm", "many"), [(by_rows, True), (heads_by_rows, True), (from_32, False), (by_place, False)]
)
def test_norms_that_tell_of_the_pass(
    norm: Norm, many: bool, dtype: torch.dtype, wide: bool, architecture: Architecture
) -> None:
    """many: those of many rows are alike."""
    tried = replace(architecture, wide_norm=wide)
    assert not norms_keep(tried, dtype, CPU, (*FEW, *ROWS), norm)
    assert norms_keep(tried, dtype, CPU, ROWS, norm) == many


def test_the_norms_of_a_model(architecture: Architecture) -> None:
    a = replace(architecture, heads=4, kv_heads=2)
    assert set(norms_of(a)) == {Normed(1, 1024), Normed(4, 64), Normed(2, 64)}
    assert set(norms_of(replace(a, norms="after"))) == {
        Normed(1, 1024),
        Normed(1, 256),
        Normed(1, 128),
    }
    assert list(norms_of(replace(a, qk_norm=False))) == [Normed(1, 1024)]


def test_weights_are_of_the_type_that_the_model_has(architecture: Architecture) -> None:
    seen: set[torch.dtype] = set()

    def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        seen.add(weight.dtype)
        return x

    for wide in (False, True):
        norms_keep(replace(architecture, wide_norm=wide), torch.bfloat16, CPU, ROWS, norm)
        assert seen == {torch.float32 if wide else torch.bfloat16}
        seen.clear()


@pytest.mark.parametrize(
    ("norm", "few", "sizes", "spread"),
    [
        (in_order, True, (*FEW, *ROWS), 0.0),
        (in_order, False, ROWS, 0.0),
        (by_rows, True, ROWS, 0.0),
        (from_32, True, ROWS, 2.0**-7),
        (from_32, False, ROWS, 2.0**-7),
    ],
)
def test_a_stage_has_the_sizes_of_which_its_norms_do_not_tell(
    norm: Norm,
    few: bool,
    sizes: tuple[int, ...],
    spread: float,
    architecture: Architecture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keep(
        architecture: Architecture, dtype: torch.dtype, device: torch.device, sizes: tuple[int, ...]
    ) -> bool:
        return norms_keep(architecture, dtype, device, sizes, norm)

    monkeypatch.setattr(load, "norms_keep", keep)
    assert load._sizes(few, architecture, torch.bfloat16, CPU) == (ROWS, 0.0)
    monkeypatch.setattr(machine, "has_own_kernels", lambda device: True)
    assert load._sizes(few, architecture, torch.bfloat16, CPU) == (sizes, spread)


def test_a_stage_says_how_far_its_norms_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.make("qwen3", tmp_path)
    monkeypatch.setenv("GARDENER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(machine, "has_own_kernels", lambda device: True)
    assert load.load_stage(tmp_path).spread == 0.0
    monkeypatch.setattr(load, "norms_keep", lambda *given: False)
    assert load.load_stage(tmp_path).spread == torch.finfo(torch.float32).eps
