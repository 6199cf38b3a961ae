"""The n-gram drafter: what it proposes, and that its probabilities follow what happens."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from gardener.decoding.tree import Node
from gardener.draft.ngram import (
    CONSIDERED,
    LUCKS,
    PRIOR_WEIGHT,
    HitRates,
    Kind,
    NGram,
    NGramDraft,
    prior,
)
from gardener.model.noise import Floats32, Noise
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
    before = drafter.hit_rates.probability(Kind(2, 0, True))
    assert before != HitRates().probability(Kind(2, 0, True))
    assert tokens(drafter.open([7])) == []
    assert drafter.hit_rates.probability(Kind(2, 0, True)) == before


def test_probabilities_never_sum_above_one() -> None:
    drafter = NGram(width=3)
    draft = drafter.open([5, 1, 5, 2, 5, 3, 5])
    for _ in range(30):
        drafter.hit_rates.observe(Kind(1, 0, False), True)
        drafter.hit_rates.observe(Kind(1, 1, False), True)
    assert sum(guess.probability for guess in draft.expand([nodes([-1])])[0]) <= 1.0


def test_where_nothing_repeats_probabilities_sink_and_rise_again() -> None:
    cells = HitRates()
    kind = Kind(3, 0, True)
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
    assert prior(Kind(1, 0, True)) < prior(Kind(2, 0, True)) < prior(Kind(5, 0, True))
    assert prior(Kind(3, 1, True)) < prior(Kind(3, 0, True))
    assert prior(Kind(3, 0, False)) < prior(Kind(3, 0, True))


# --- with the noise of the target ------------------------------------------------------------


def test_noise_ranks_what_followed() -> None:
    """After 5 came 1 twice, 2 once, 3 once: the share of each, and its noise, decide."""
    text = [5, 1, 5, 1, 5, 2, 5, 3, 5]
    firsts = Counter[int]()
    for seed in range(400):
        noise = Noise(seed).row(len(text), 4)
        (best, *rest) = tokens(NGram().open(text, Sampling(1.0, seed=seed)))
        shares = {1: 2, 2: 1, 3: 1}
        due = sorted(shares, key=lambda t: math.log(shares[t]) + noise[t], reverse=True)
        assert [best, *rest] == due
        firsts[best] += 1
    assert firsts[1] / 400 == pytest.approx(0.5, abs=0.08)
    assert firsts[2] / 400 == pytest.approx(0.25, abs=0.08)


def test_the_noise_is_that_of_the_position_after_the_path() -> None:
    text = [5, 1, 5, 2, 5, 1, 5, 2]
    found = Counter[bool]()
    for seed in range(50):
        sampling = Sampling(1.0, seed=seed)
        longer = tokens(NGram(longest=1).open([*text, 5, 2, 5], sampling))
        same = tokens(NGram(longest=1).open([*text, 5], sampling), 2, 5)
        assert len(longer) == len(same) == 2
        found[same[0] == longer[0]] += 1
    assert found[True] > 35  # the shares differ by what is certain alone, the noise is the same


def test_a_lucky_token_is_believed_more() -> None:
    text = [5, 1, 5]
    drawn = {seed: float(Noise(seed).of(len(text), [1])[0]) for seed in range(60)}
    by_luck = sorted(drawn, key=drawn.__getitem__)
    said = [
        NGram().open(text, Sampling(1.0, seed=seed)).expand([nodes([-1])])[0][0].probability
        for seed in by_luck
    ]
    assert said == sorted(said)
    assert said[0] < 0.1 < 0.4 < said[-1]


def test_each_luck_has_a_hit_rate_of_its_own() -> None:
    drafter = NGram()
    sampling = Sampling(1.0, seed=4)
    drafter.open([1, 2], sampling).settle(nodes([1, 2, 1, 2, 1]))
    learnt = [
        luck
        for luck in range(4)
        if drafter.hit_rates.probability(Kind(2, 0, True, luck)) != prior(Kind(2, 0, True, luck))
    ]
    assert learnt
    assert drafter.hit_rates.probability(Kind(2, 0, True)) == prior(Kind(2, 0, True))


def test_the_chance_of_a_token_over_all_noise_is_its_probability() -> None:
    """`u ** ((1 - p) / p)` over all u is p; the parts into which luck is split come near it."""
    for length in (1, 3, 6):
        whole = prior(Kind(length, 0, True))
        parts = [prior(Kind(length, 0, True, luck)) for luck in range(LUCKS)]
        assert parts == sorted(parts)
        assert sum(parts) / LUCKS == pytest.approx(whole, abs=0.03)


def test_only_the_noise_of_what_followed_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for n-grams waits on the event loop."""
    drawn: list[tuple[int, list[int]]] = []

    def of(self: Noise, position: int, tokens: Sequence[int]) -> Floats32:
        drawn.append((position, list(tokens)))
        return np.zeros(len(tokens), np.float32)

    monkeypatch.setattr(Noise, "of", of)
    monkeypatch.delattr(Noise, "row")
    text = [token for other in range(10) for token in (5, 10 + other)]
    draft = NGram().open([*text, 5], Sampling(1.0, seed=1))
    for _ in range(3):
        draft.expand([nodes([-1]), nodes([-1, 12, 5])])
    draft.settle(nodes([12]))
    assert [position for position, _ in drawn] == [21, 23]  # once each
    assert all(len(tokens) == CONSIDERED for _, tokens in drawn)
    NGram().open(text).expand([nodes([-1])])
    assert len(drawn) == 2


def test_noise_that_is_behind_the_text_is_forgotten() -> None:
    draft = NGram().open([5, 1, 5], Sampling(1.0, seed=1))
    for _ in range(50):
        draft.expand([nodes([-1]), nodes([-1, 1, 5])])
        draft.settle(nodes([1, 5, 1, 5]))
    assert len(draft._drawn) <= 2
