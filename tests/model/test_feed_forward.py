"""A row of the feed-forward part comes to the same bits whatever rows are computed beside it."""

from collections.abc import Iterator

import pytest
import torch

from gardener.model.feed_forward import ACTIVATIONS, gated


@pytest.fixture(params=[1, 3, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inner", [44, 1536, 8192, 36001])
@pytest.mark.parametrize("name", [*ACTIVATIONS])
def test_a_gated_row_has_the_same_bits_in_any_batch(
    name: str, inner: int, dtype: torch.dtype
) -> None:
    draw = torch.Generator().manual_seed(inner)
    rows = (2 * torch.randn(33, 2 * inner, generator=draw)).to(dtype)
    activation = ACTIVATIONS[name]
    alone = torch.cat([gated(activation, row[None]) for row in rows])

    for count in (2, 5, 17, 33):
        assert torch.equal(gated(activation, rows[:count]), alone[:count])
    assert torch.equal(gated(activation, rows[7:20]), alone[7:20])
