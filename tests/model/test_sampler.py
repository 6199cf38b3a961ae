"""What is picked: the law, the order of the settings, and that a row never depends on others."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sampled
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from gardener.model.sampler import Picking, Picks, Sampler
from gardener.protocol.sampling import Sampling

LOGITS = [2.0, 1.0, 1.0, 0.0, -0.5, -1.0, -3.0, 0.3]
"""Two are equal."""

DRAWS = 20_000

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hot": {"temperature": 1.7},
    "cold": {"temperature": 0.4},
    "top-k": {"top_k": 3},
    "top-k at a tie": {"top_k": 2},
    "top-p": {"top_p": 0.7},
    "min-p": {"min_p": 0.2},
    "all": {"temperature": 1.3, "top_k": 6, "top_p": 0.9, "min_p": 0.02},
    "bias": {"logit_bias": ((3, 2.0), (0, -1.5)), "top_p": 0.8},
}


def one(logits: Sequence[float] | torch.Tensor, sampling: Sampling, position: int = 0) -> int:
    """The pick of a single row without a text."""
    rows = torch.as_tensor(logits)[None]
    return Sampler(sampling, 0).pick(rows, Picking(Sampler(sampling, 0), [position])).tokens[0]


# --- the law -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_over_positions_the_picks_have_the_law_of_the_model(name: str) -> None:
    sampling = Sampling(**({"temperature": 1.0, "seed": 11} | SETTINGS[name]))
    sampler, rows = Sampler(sampling, 0), 100
    logits = torch.tensor([LOGITS] * rows)
    found: Counter[int] = Counter()
    for first in range(0, DRAWS, rows):
        picking = Picking(sampler, range(first, first + rows))
        found.update(sampler.pick(logits, picking).tokens)
    assert found.total() == DRAWS
    chances = sampled.law(LOGITS, sampling)
    assert sampled.follows_law(found, chances)
    assert not sampled.follows_law(found, np.roll(chances, 1)), "or else the test says nothing"


def test_over_seeds_the_picks_have_the_law_of_the_model() -> None:
    found = Counter(one(LOGITS, Sampling(1.0, seed=seed), 5) for seed in range(DRAWS))
    assert sampled.follows_law(found, sampled.law(LOGITS, Sampling(1.0)))


def test_a_law_of_three_tokens() -> None:
    """10, 60 and 30 percent: the case in which noise that is shared under a ratio test is off."""
    logits = [math.log(chance) for chance in (0.1, 0.6, 0.3)]
    found = Counter(one(logits, Sampling(1.0, seed=3), position) for position in range(DRAWS))
    assert sampled.follows_law(found, np.array([0.1, 0.6, 0.3]))
    assert not sampled.follows_law(found, np.array([0.1, 0.63, 0.27]))


# --- kept sets -----------------------------------------------------------------------------------

SCORES = st.lists(st.integers(-12, 12), min_size=1, max_size=24).map(
    lambda steps: [step / 4 for step in steps]  # coarse, so that there are many ties
)


@given(
    logits=SCORES,
    temperature=st.sampled_from([0.5, 1.0, 1.6]),
    top_k=st.integers(0, 30),
    top_p=st.sampled_from([1.0, 0.97, 0.83, 0.51, 0.211, 0.0123]),
    min_p=st.sampled_from([0.0, 0.013, 0.117, 0.7]),
    seed=st.integers(0, 2**63 - 1),
    position=st.integers(0, 10_000),
)
@example([0.0] * 9, 1.0, 3, 0.5, 0.0, 1, 1)
@example([1.0, 1.0, 0.0], 1.0, 1, 1.0, 0.0, 4, 2)
def test_the_pick_is_the_best_of_what_is_kept(
    logits: list[float],
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    position: int,
) -> None:
    sampling = Sampling(temperature, top_p, top_k, min_p, seed=seed)
    text = [0] * position
    assert one(logits, sampling, position) == sampled.pick(logits, sampling, text, 0)


def test_equal_tokens_are_kept_together_or_left_out_together() -> None:
    logits = [3.0, 1.0, 1.0, 1.0, 0.0]
    for settings, tokens in (
        ({"top_k": 2}, {0, 1, 2, 3}),
        ({"top_k": 1}, {0}),
        ({"top_p": 0.75}, {0, 1, 2, 3}),
        ({"top_p": 0.6}, {0}),
        ({"min_p": math.exp(-2.001)}, {0, 1, 2, 3}),
        ({"min_p": 1.0}, {0}),
    ):
        sampling = Sampling(5.0 if "top_k" in settings else 1.0, seed=1, **settings)
        assert {one(logits, sampling, at) for at in range(400)} == tokens


def test_the_share_of_top_p_is_of_what_top_k_has_left() -> None:
    """50, 30 and 20 percent: of the first two, the first has 62.5."""
    logits = [math.log(chance) for chance in (0.5, 0.3, 0.2)]
    for share, tokens in ((0.6, {0}), (0.65, {0, 1})):
        sampling = Sampling(1.0, share, 2, seed=1)
        assert {one(logits, sampling, at) for at in range(200)} == tokens


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.5}, {"top_k": 2}, {"min_p": 0.5}])
def test_logits_that_are_no_numbers_end_in_some_pick(settings: dict[str, Any]) -> None:
    for logits in ([math.nan] * 3, [0.0, math.nan, 1.0], [0.0, math.inf, 1.0], [-math.inf] * 3):
        assert 0 <= one(logits, Sampling(1.0, seed=1, **settings)) < 3


# --- rows alone and in batches -------------------------------------------------------------------

EVERYTHING = Sampling(
    0.8, 0.9, 40, 0.001, 1.2, 0.3, 0.2, ((5, 1.5), (17, -2.0)), 99, min_tokens=4, eos=(3, 9)
)
MANY = {
    "plain": Sampling(1.0, seed=5),
    "greedy": Sampling(repetition_penalty=1.3),
    "top-p": Sampling(0.7, 0.9, seed=5),
    "top-k": Sampling(1.1, top_k=50, seed=5),
    "everything": EVERYTHING,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("vocabulary", [61, 1003, 49_153])
@pytest.mark.parametrize("name", MANY)
def test_a_row_has_the_same_pick_alone_and_among_others(
    name: str, vocabulary: int, dtype: torch.dtype
) -> None:
    logits = (3 * torch.randn(17, vocabulary, generator=torch.Generator().manual_seed(1))).to(dtype)
    text = [7, 3, 17, 7, 20, 50]
    paths = [tuple(range(row % 5)) for row in range(17)]
    positions = [len(text) + len(path) for path in paths]

    def picks(rows: Sequence[int]) -> Picks:
        sampler = Sampler(MANY[name], 3, best=3)
        picking = Picking(
            sampler, [positions[r] for r in rows], text, len(text), [paths[r] for r in rows]
        )
        return sampler.pick(logits[list(rows)], picking)

    whole = picks(range(17))
    for rows in ([0], [16], [5, 3], [1, 2, 3, 4, 5, 6, 7], list(range(16, -1, -1))):
        some = picks(rows)
        assert some.tokens == tuple(whole.tokens[row] for row in rows)
        assert some.logprobs == tuple(whole.logprobs[row] for row in rows)


def test_logits_are_left_as_they_are() -> None:
    logits = torch.randn(2, 61)
    before = logits.clone()
    sampler = Sampler(EVERYTHING, 1)
    sampler.pick(logits, Picking(sampler, [2, 3], [1, 2], 2, [(), (4,)]))
    assert torch.equal(logits, before)


# --- bias, least length, penalties ---------------------------------------------------------------


def test_ends_are_not_picked_before_the_answer_is_long_enough() -> None:
    """Not even with a bias. `min_tokens` are counted without the prompt."""
    sampling = Sampling(logit_bias=((2, 100.0),), min_tokens=3, eos=(2, 0))
    sampler = Sampler(sampling, 4)
    logits = torch.tensor([[5.0, 1.0, 6.0, 0.0]] * 4)
    assert sampler.pick(logits, Picking(sampler, [4, 7, 6, 8])).tokens == (1, 2, 1, 2)


def test_a_bias_can_bring_a_token_up_and_forbid_it() -> None:
    assert one([1.0, 0.0], Sampling(logit_bias=((1, 1.5),))) == 1
    assert one([1.0, 0.0], Sampling(logit_bias=((0, -100.0),))) == 1
    assert one([1.0, 0.0], Sampling(logit_bias=((1, 0.5),))) == 0


PENALTIES = {
    "repetition": Sampling(repetition_penalty=1.6),
    "encouraged": Sampling(repetition_penalty=0.6),
    "presence": Sampling(presence_penalty=0.8),
    "frequency": Sampling(frequency_penalty=0.35),
    "rewarded": Sampling(frequency_penalty=-0.35),
    "all": Sampling(0.9, 0.95, 0, 0.0, 1.2, 0.2, 0.1, ((1, 0.7),), 4),
}


@given(data=st.data(), name=st.sampled_from(sorted(PENALTIES)))
def test_penalties_are_those_of_the_whole_text_of_a_row(data: st.DataObject, name: str) -> None:
    """As a reference that recounts everything has it, while the text grows and rows branch."""
    tokens = st.integers(0, 8)
    prompt = data.draw(st.integers(1, 6))
    text = data.draw(st.lists(tokens, min_size=prompt, max_size=prompt + 8))
    logits = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 1, (3, 9))
    sampler = Sampler(PENALTIES[name], prompt)
    for certain in sorted({prompt, data.draw(st.integers(prompt, len(text))), len(text)}):
        paths = [data.draw(st.lists(tokens, max_size=4)) for _ in range(3)]
        positions = [certain + len(path) for path in paths]
        picking = Picking(sampler, positions, text, certain, paths)
        picks = sampler.pick(torch.tensor(logits, dtype=torch.float32), picking).tokens
        for row, path in enumerate(paths):
            whole = [*text[:certain], *path]
            assert picks[row] == sampled.pick(logits[row].tolist(), PENALTIES[name], whole, prompt)


def test_siblings_have_counts_of_their_own() -> None:
    sampler = Sampler(Sampling(frequency_penalty=1.0), 1)
    logits = torch.tensor([[1.5, 1.0, 0.0]] * 4)
    picking = Picking(sampler, [2, 2, 3, 3], [0], 1, [(0,), (1,), (0, 0), (1, 0)])
    assert sampler.pick(logits, picking).tokens == (1, 0, 1, 0)


def test_a_prompt_is_repeated_but_is_not_present() -> None:
    logits = torch.tensor([[1.0, 0.9]])
    for sampling, token in (
        (Sampling(repetition_penalty=2.0), 1),
        (Sampling(presence_penalty=2.0), 0),
        (Sampling(frequency_penalty=2.0), 0),
    ):
        sampler = Sampler(sampling, 2)
        assert sampler.pick(logits, Picking(sampler, [2], [0, 0], 2, [()])).tokens == (token,)


def test_a_text_that_grows_meanwhile_counts_as_far_as_it_is_said_to() -> None:
    sampler = Sampler(Sampling(presence_penalty=2.0), 1)
    logits, text = torch.tensor([[1.0, 0.9]]), [0, 0]
    assert sampler.pick(logits, Picking(sampler, [1], text, 1, [()])).tokens == (0,)
    assert sampler.pick(logits, Picking(sampler, [2], text, 2, [()])).tokens == (1,)


# --- log probabilities ---------------------------------------------------------------------------


@pytest.mark.parametrize("best", [0, 1, 5])
def test_log_probabilities_are_of_the_model_itself(best: int) -> None:
    """Without bias, penalties and temperature."""
    logits = torch.randn(6, 61, generator=torch.Generator().manual_seed(2))
    sampler = Sampler(EVERYTHING, 1, best)
    picks = sampler.pick(logits, Picking(sampler, [9] * 6, [1, 2], 2, [(3,) * 7] * 6))
    expected = torch.log_softmax(logits.double(), -1)
    assert len(picks.logprobs) == 6
    for row, token, told in zip(expected, picks.tokens, picks.logprobs, strict=True):
        assert told.pick == pytest.approx(float(row[token]), abs=1e-5)
        order = row.argsort(descending=True)[:best].tolist()
        assert [named for named, _ in told.best] == order
        assert [log for _, log in told.best] == pytest.approx(row[order].tolist(), abs=1e-5)


def test_of_equal_tokens_the_lower_one_is_told_first() -> None:
    logits = torch.zeros(1, 300, dtype=torch.bfloat16)
    logits[0, [200, 100]] = 1.0
    sampler = Sampler(Sampling(), 1, 4)
    (told,) = sampler.pick(logits, Picking(sampler, [1])).logprobs
    assert [token for token, _ in told.best] == [100, 200, 0, 1]


def test_nothing_is_told_unless_it_was_asked_for() -> None:
    sampler = Sampler(Sampling(1.0, seed=1), 1)
    assert sampler.pick(torch.randn(2, 9), Picking(sampler, [1, 1])).logprobs == ()


def test_of_a_text_that_moves_on_no_noise_is_kept() -> None:
    sampler = Sampler(Sampling(1.0, seed=1), 1)
    for length in range(1, 9):
        picking = Picking(sampler, [length, length + 1, length + 2], [0] * 8, length)
        sampler.pick(torch.randn(3, 61), picking)
    assert sampler._noise is not None
    assert sorted(sampler._noise._rows) == [8, 9, 10]


def test_noise_needs_a_seed() -> None:
    with pytest.raises(ValueError, match=r"noise without a seed: call Sampling\.seeded first"):
        Sampler(Sampling(1.0), 1)
