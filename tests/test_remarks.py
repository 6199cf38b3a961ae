"""What the holder says about a ring that stands."""

import msgspec
import pytest
from rings import card

from gardener.cli.ring import remark

FLAT = msgspec.structs.replace(card(1, 2), costs=((1, 1000), (8, 1500)))
STEEP = msgspec.structs.replace(card(2, 2), costs=((1, 1000), (8, 7000)))


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ((), ["stage 2: 8 rows take 7.0 times as long as 1, so that guesses hardly pay"]),
        (("plain", "gardener"), ["stage 2: 8 rows"]),
        (("plain",), []),
    ],
)
def test_a_stage_where_guesses_hardly_pay_is_named(
    policies: tuple[str, ...], said: list[str]
) -> None:
    lines: list[str] = []
    remark((FLAT, STEEP), policies, lines.append)
    assert [line[: len(start)] for line, start in zip(lines, said, strict=True)] == said
