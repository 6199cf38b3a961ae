"""Which answers repeat themselves."""

import pytest

from gardener.evaluation.repeats import period

TEXT = list(range(100, 200))


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        (TEXT, None),
        ([], None),
        ([1], None),
        ([1, 1], None),
        (TEXT[:20] + [1] * 10, 1),  # a third of it
        (TEXT[:21] + [1] * 10, None),
        (TEXT[:10] + [1, 2, 3] * 3, 3),
        (TEXT[:10] + [1, 2, 3] * 2 + [1, 2], None),  # not quite three times
        (TEXT[:10] + [1, 2, 3] * 3 + [1, 2], 3),  # cut off in the middle
        (TEXT[:10] + [1, 2, 1, 2] * 9, 2),  # the shortest
        (TEXT[:32] * 3, 32),
        (TEXT[:33] * 3, None),
        ([1, 2] * 30 + [0], None),  # it ended by itself
        ([1] * 30 + TEXT[:10], None),  # it went on with something else
    ],
)
def test_what_stands_at_the_end_again_and_again(tokens: list[int], found: int | None) -> None:
    assert period(tokens) == found
