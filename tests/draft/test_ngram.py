"""The n-gram drafter: what it proposes, and that its probabilities follow what happens."""

from collections.abc import Sequence

from gardener.decoding.tree import Node
from gardener.draft.ngram import PRIOR_WEIGHT, Calibration, NGram, prior


def nodes(tokens: Sequence[int]) -> list[Node]:
    return [Node(i, i - 1, token, 0.0) for i, token in enumerate(tokens)]


def tokens(drafter: NGram, *path: int) -> list[int]:
    """What follows a path below the root, whose own token is of no interest."""
    return [guess.token for guess in drafter.expand([nodes([-1, *path])])[0]]


def test_the_longest_suffix_decides() -> None:
    drafter = NGram()
    drafter.begin([1, 2, 3, 9, 2, 3, 4, 1, 2, 3])
    assert tokens(drafter)[0] == 9  # after 1 2 3, though after 3 alone 4 was last


def test_the_longest_suffix_is_as_long_as_was_said() -> None:
    """After 1 2 3 came 9 alone; after 2 3, and after 3, mostly 4."""
    text = [1, 2, 3, 9, 2, 3, 4, 2, 3, 4, 7, 1, 2, 3]
    for longest, best in ((2, 4), (3, 9), (4, 9)):
        drafter = NGram(longest)
        drafter.begin(text)
        assert tokens(drafter)[0] == best
        drafter.begin(text[:-2])  # the rest of it guessed or written later
        assert tokens(drafter, 2, 3)[0] == best
        drafter.settle(nodes(text[-2:]))
        assert tokens(drafter)[0] == best


def test_six_tokens_decide_and_no_more() -> None:
    seven = [1, 2, 3, 4, 5, 6, 7]
    for differs, best in ((0, 8), (1, 9)):
        other = [token + 20 if at == differs else token for at, token in enumerate(seven)]
        drafter = NGram()
        drafter.begin([*seven, 9, *other, 8, 30, *other, 8, 31, *seven])
        # Where only the first of seven differs, both came after the same six: most often, first.
        assert tokens(drafter)[0] == best


def test_shorter_suffixes_fill_up() -> None:
    drafter = NGram()
    drafter.begin([1, 2, 3, 9, 2, 3, 4, 1, 2, 3])
    assert tokens(drafter) == [9, 4]


def test_more_often_goes_before_more_recently() -> None:
    drafter = NGram()
    drafter.begin([5, 1, 5, 1, 5, 2, 5])
    assert tokens(drafter) == [1, 2]
    drafter.begin([5, 1, 5, 2, 5])
    assert tokens(drafter) == [2, 1]


def test_a_path_below_the_root_is_part_of_the_suffix() -> None:
    drafter = NGram()
    drafter.begin([1, 2, 3, 4, 5, 1])
    assert tokens(drafter, 2) == [3]
    assert tokens(drafter, 2, 3, 4) == [5]


def test_a_text_without_repetition_gives_nothing() -> None:
    drafter = NGram()
    drafter.begin([1, 2, 3])
    assert tokens(drafter) == []


def test_settled_tokens_are_learnt() -> None:
    drafter = NGram()
    drafter.begin([1])
    drafter.settle(nodes([2, 1]))
    assert tokens(drafter) == [2]


def test_a_new_request_forgets_the_text_but_not_what_it_learnt_of_itself() -> None:
    drafter = NGram()
    drafter.begin([1, 2])
    drafter.settle(nodes([1, 2, 1, 2, 1]))
    before = drafter.calibration.probability((2, 0, True))
    drafter.begin([7])
    assert tokens(drafter) == []
    assert drafter.calibration.probability((2, 0, True)) == before


def test_probabilities_never_sum_above_one() -> None:
    drafter = NGram(width=3)
    drafter.begin([5, 1, 5, 2, 5, 3, 5])
    for _ in range(30):
        drafter.calibration.observe((1, 0, False), True)
        drafter.calibration.observe((1, 1, False), True)
    assert sum(guess.probability for guess in drafter.expand([nodes([-1])])[0]) <= 1.0


def test_where_nothing_repeats_probabilities_sink_and_rise_again() -> None:
    cells = Calibration()
    kind = (3, 0, True)
    assert cells.probability(kind) == prior(kind)
    for _ in range(40):
        cells.observe(kind, False)
    low = cells.probability(kind)
    assert low < 0.15
    for _ in range(40):
        cells.observe(kind, True)
    assert cells.probability(kind) > 0.7
    assert PRIOR_WEIGHT < 40


def test_longer_matches_are_believed_more() -> None:
    assert prior((1, 0, True)) < prior((2, 0, True)) < prior((5, 0, True))
    assert prior((3, 1, True)) < prior((3, 0, True))
    assert prior((3, 0, False)) < prior((3, 0, True))
