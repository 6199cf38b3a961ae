"""What `gardener verify` holds a ring to."""

import msgspec
import pytest
from loopback import card

from gardener.cli.verify import _against


@pytest.mark.parametrize(
    ("dtype", "quant", "head", "against"),
    [
        ("float32", "none", "none", "transformers"),
        ("float32", "none", "int8", "plain"),
        ("float32", "int4", "int8", "plain"),
        ("bfloat16", "none", "none", "plain"),
    ],
)
def test_only_unrounded_float32_is_held_to_transformers(
    dtype: str, quant: str, head: str, against: str
) -> None:
    shown = msgspec.structs.replace(card(1, 1), dtype=dtype, quant=quant, head_quant=head)
    assert _against("auto", shown, whole=True) == against
    assert _against("auto", shown, whole=False) == "plain"
    assert _against("transformers", shown, whole=True) == "transformers"
