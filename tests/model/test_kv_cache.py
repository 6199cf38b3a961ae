"""How rows get into a cache on devices that are slow in what others do fast."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from gardener.model import kv_cache
from gardener.model.architecture import Architecture
from gardener.model.kv_cache import KVCache
from gardener.model.placement import Moves

CPU = torch.device("cpu")


def filled(architecture: Architecture) -> KVCache:
    """A cache to which rows were written, and in which some were moved."""
    cache, draw = KVCache(2, architecture, torch.float32, CPU), torch.Generator().manual_seed(1)
    for layer in range(2):
        size = (3, architecture.kv_heads, architecture.head_dim)
        keys, values = (torch.randn(size, generator=draw) for _ in range(2))
        cache.write(layer, torch.tensor([5, 0, 2]), keys, values)
    cache.move(Moves(np.array([5, 0, 2]), np.array([0, 5, 300])))
    return cache


def test_an_index_does_what_a_copy_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.make("llama", tmp_path)
    architecture = Architecture.read(tmp_path)
    usual = filled(architecture)
    assert {len(usual.read(0)[0][0]), usual.slots} == {512}

    def copy(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
        pytest.fail("it is slow there")

    monkeypatch.setattr(kv_cache, "_SLOW_COPIES", ("cpu",))
    monkeypatch.setattr(Tensor, "index_copy_", copy)
    other = filled(architecture)
    for layer in range(2):
        for mine, theirs in zip(usual.read(layer), other.read(layer), strict=True):
            assert torch.equal(mine, theirs)
            assert theirs[:, [0, 5, 300]].abs().sum((0, 2)).all()
