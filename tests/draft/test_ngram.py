"""The n-gram drafter: what it proposes, and that its probabilities follow what happens."""

from collections.abc import Sequence

from gardener.decoding.tree import Node
from gardener.draft.ngram import PRIOR_WEIGHT, HitRates, NGram, NGramDraft, prior
from gardener.protocol.sampling import Sampling


def nodes(tokens: Sequence[int]) -> list[Node]:
    return [Node(i, i - 1, token, 0.0) for i, token in enumerate(tokens)]


def tokens(draft: NGramDraft, *path: int) -> list[int]:
    """What follows a path below the root, whose own token is of no interest."""
    return [guess.token for guess in draft.expand([nodes([-1, *path])])[0]]


def test_the_longest_suffix_decides() -> None:
    draft = NGram().open([1, 2, 3, 9, 2, 3, 4, 1, 2, 3])
    assert tokens(draft)[0] == 9  # after 1 2 3, though after 3 alone 4 was last


def test_the_longest_suffix_is_as_long_as_was_said() -> None:
    """After 1 2 3 came 9 alone; after 2 3, and after 3, mostly 4."""
    text = [1, 2, 3, 9, 2, 3, 4, 2, 3, 4, 7, 1, 2, 3]
    for longest, best in ((2, 4), (3, 9), (4, 9)):
        drafter = NGram(longest)
        assert tokens(drafter.open(text))[0] == best
        draft = drafter.open(text[:-2])  # the rest of it guessed or written later
        assert tokens(draft, 2, 3)[0] == best
        draft.settle(nodes(text[-2:]))
        assert tokens(draft)[0] == best


def test_six_tokens_decide_and_no_more() -> None:
    seven = [1, 2, 3, 4, 5, 6, 7]
    for differs, best in ((0, 8), (1, 9)):
        other = [token + 20 if at == differs else token for at, token in enumerate(seven)]
        draft = NGram().open([*seven, 9, *other, 8, 30, *other, 8, 31, *seven])
        # Where only the first of seven differs, both came after the same six: most often, first.
        assert tokens(draft)[0] == best


def test_shorter_suffixes_fill_up() -> None:
    draft = NGram().open([1, 2, 3, 9, 2, 3, 4, 1, 2, 3])
    assert tokens(draft) == [9, 4]


def test_more_often_goes_before_more_recently() -> None:
    assert tokens(NGram().open([5, 1, 5, 1, 5, 2, 5])) == [1, 2]
    assert tokens(NGram().open([5, 1, 5, 2, 5])) == [2, 1]


def test_the_noise_of_the_target_changes_nothing() -> None:
    text, root = [5, 1, 5, 1, 5, 2, 5], nodes([-1])
    plain = NGram().open(text).expand([root])
    for seed in range(20):
        assert NGram().open(text, Sampling(1.0, seed=seed)).expand([root]) == plain


def test_a_path_below_the_root_is_part_of_the_suffix() -> None:
    draft = NGram().open([1, 2, 3, 4, 5, 1])
    assert tokens(draft, 2) == [3]
    assert tokens(draft, 2, 3, 4) == [5]


def test_a_text_without_repetition_gives_nothing() -> None:
    draft = NGram().open([1, 2, 3])
    assert tokens(draft) == []


def test_settled_tokens_are_learnt() -> None:
    draft = NGram().open([1])
    draft.settle(nodes([2, 1]))
    assert tokens(draft) == [2]


def test_a_new_request_forgets_the_text_but_not_what_it_learnt_of_itself() -> None:
    drafter = NGram()
    drafter.open([1, 2]).settle(nodes([1, 2, 1, 2, 1]))
    before = drafter.hit_rates.probability((2, 0, True))
    assert before != HitRates().probability((2, 0, True))
    assert tokens(drafter.open([7])) == []
    assert drafter.hit_rates.probability((2, 0, True)) == before


def test_probabilities_never_sum_above_one() -> None:
    drafter = NGram(width=3)
    draft = drafter.open([5, 1, 5, 2, 5, 3, 5])
    for _ in range(30):
        drafter.hit_rates.observe((1, 0, False), True)
        drafter.hit_rates.observe((1, 1, False), True)
    assert sum(guess.probability for guess in draft.expand([nodes([-1])])[0]) <= 1.0


def test_where_nothing_repeats_probabilities_sink_and_rise_again() -> None:
    cells = HitRates()
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
