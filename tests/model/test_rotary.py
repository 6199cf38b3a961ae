"""Tables of rotations that grow while others read them."""

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from gardener.model import rotary
from gardener.model.architecture import Architecture
from gardener.model.rotary import Rotary


def test_a_table_that_grows_is_kept_until_it_is_read_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.make("llama", tmp_path)
    kept: list[Tensor] = []
    monkeypatch.setattr(rotary, "keep_until_read", kept.append)
    made = Rotary(Architecture.read(tmp_path), torch.float32, torch.device("cpu"))
    positions = torch.tensor([0, 3, 99])
    (before,) = made.at(positions, 99)
    (table,) = made._tables
    old = [table._cos, table._sin]
    assert made.reserve(5000)
    assert [each.data_ptr() for each in kept[-2:]] == [each.data_ptr() for each in old]
    (after,) = made.at(positions, 99)
    assert torch.equal(after.cos, before.cos)
    assert torch.equal(after.sin, before.sin)
