"""Names of kinds of quantisation, and what follows from them."""

from typing import get_args

import pytest

from gardener.cli.stage_options import HeadQuantName, QuantName
from gardener.model.quants import AUTO, HEAD_QUANTS, QUANTS, fitting_group, of_head


def test_options_name_every_kind() -> None:
    assert set(get_args(QuantName)) == {*QUANTS, AUTO}
    assert get_args(HeadQuantName) == HEAD_QUANTS


@pytest.mark.parametrize(
    ("inputs", "group", "fits"),
    [(576, 128, 64), (576, 32, 32), (4096, 128, 128), (48, 32, 16), (40, 32, None)],
)
def test_groups_divide_the_inputs(inputs: int, group: int, fits: int | None) -> None:
    assert fitting_group(inputs, group) == fits


@pytest.mark.parametrize(
    ("asked", "layers", "taken"),
    [
        ("auto", "int4", "int8"),
        ("auto", "int8", "int8"),
        ("auto", "none", "none"),
        ("auto", "nf4", "none"),
        ("none", "int4", "none"),
        ("int4", "none", "int4"),
    ],
)
def test_the_head_follows_the_layers_unless_told_otherwise(
    asked: str, layers: str, taken: str
) -> None:
    assert of_head(asked, layers) == taken
