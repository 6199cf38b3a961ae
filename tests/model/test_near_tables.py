"""An embedding for a device is kept there, if it can be. A device without memory stands in."""

import pytest
import torch
from torch import Tensor

from gardener.model.checkpoint import table as tables
from gardener.model.checkpoint.table import FloatTable, Table, near

CPU, THERE = torch.device("cpu"), torch.device("meta")
VOCAB, WIDTH = 9000, 4


class Quantised(Table):
    """Whose rows are made when they are asked for."""

    def __init__(self) -> None:
        super().__init__(VOCAB)
        self.asked = 0

    def rows(self, tokens: Tensor) -> Tensor:
        self.asked += len(tokens)
        return tokens[:, None].float().expand(-1, WIDTH)


def test_on_the_cpu_a_table_stays_as_it_is() -> None:
    quantised, floats = Quantised(), FloatTable(torch.zeros(VOCAB, WIDTH))
    for table in (quantised, floats):
        assert near(table, VOCAB, CPU, torch.float16) is table
    assert (quantised.is_on(CPU), floats.is_on(CPU), floats.is_on(THERE)) == (False, True, False)


def test_floats_go_to_the_device() -> None:
    table = near(FloatTable(torch.zeros(VOCAB, WIDTH)), VOCAB, THERE, torch.float16)
    assert table.is_on(THERE)
    assert table.nbytes == 2 * VOCAB * WIDTH


def test_what_is_quantised_is_widened_there() -> None:
    table = near(Quantised(), VOCAB, THERE, torch.float16)
    assert table.is_on(THERE)
    assert table.nbytes == 2 * VOCAB * WIDTH


def test_what_is_too_large_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGEST_NEAR", 2 * VOCAB * WIDTH - 1)
    quantised, floats = Quantised(), FloatTable(torch.zeros(VOCAB, WIDTH))
    for table in (quantised, floats):
        assert near(table, VOCAB, THERE, torch.float16) is table
    assert quantised.asked == 1
