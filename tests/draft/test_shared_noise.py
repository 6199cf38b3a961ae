"""Drafters that know the noise change no text: it equals plain decoding, and has the right law.

A ratio test between draft and target is right only where the two draw independently. With noise
that they share it is biased: of a law of 10, 60 and 30 %, the second token came out at 63.0 %. So a
guess is accepted if and only if it equals the pick, and this is what guards that.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import fakes
import numpy as np
import pytest
import sampled
import torch

from gardener.decoding.limits import Limits
from gardener.decoding.policy import POLICIES, Bounds, make
from gardener.decoding.tree import Guess, Node
from gardener.draft.ngram import NGram
from gardener.draft.ranking import Ranking
from gardener.model.noise import Noise
from gardener.protocol.sampling import Sampling

PROMPT = (1, 0, 1, 2)
TOKENS = 100
"""In each answer."""

Law = Callable[[Sequence[int]], Sequence[float]]
"""The probabilities of all tokens after a text."""


def three(text: Sequence[int]) -> Sequence[float]:
    return 0.1, 0.6, 0.3


def chain(text: Sequence[int]) -> Sequence[float]:
    """Of five tokens, by the one before."""
    law = (0.5, 0.05, 0.05, 0.3, 0.1)
    return [law[(token - text[-1]) % 5] for token in range(5)]


def off(text: Sequence[int]) -> Sequence[float]:
    """What a drafter believes that is wrong about `three`."""
    return 0.3, 0.3, 0.4


def wrong(text: Sequence[int]) -> Sequence[float]:
    """And about `chain`."""
    return 0.2, 0.2, 0.2, 0.1, 0.3


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def target(law: Law, seed: int) -> Callable[[Sequence[int]], int]:
    noise = Noise(seed)

    def pick(text: Sequence[int]) -> int:
        odds = law(text)
        return int((np.log(odds) + noise.row(len(text), len(odds))).argmax())

    return pick


def plain(law: Law, seed: int) -> list[int]:
    text, pick = list(PROMPT), target(law, seed)
    while len(text) < len(PROMPT) + TOKENS:
        text.append(pick(text))
    return text[len(PROMPT) :]


def ranked(law: Law, sampling: Sampling) -> fakes.Drafts:
    """A drafter that believes in this law."""
    made = Ranking(sampling, None, len(PROMPT))

    def drafts(text: Sequence[int]) -> tuple[Guess, ...]:
        tokens, log_q = made.best(torch.tensor([law(text)]).log(), 2, text, [[]])
        return tuple(map(Guess, tokens[0].tolist(), log_q[0].exp().tolist()))

    return drafts


def repeated(sampling: Sampling) -> fakes.Drafts:
    """What n-grams guess."""
    drafter, root = NGram(longest=3, width=2), Node(0, -1, 0, 0.0)

    def drafts(text: Sequence[int]) -> tuple[Guess, ...]:
        return drafter.open(text[-40:], sampling).expand([[root]])[0]

    return drafts


def answer(policy: str, law: Law, seed: int, drafts: fakes.Drafts) -> fakes.FakeRing:
    return fakes.decode(
        PROMPT,
        make(policy, Bounds(rows=6, floor=0.05)),
        Limits(TOKENS, 1 << 20),
        drafts,
        random.Random(seed),
        stages=1 + seed % 3,
        target=target(law, seed),
    )


def excess(counts: Sequence[int], law: Sequence[float]) -> float:
    """The chi-square statistic."""
    due = sum(counts) * np.array(law)
    return float(((np.array(counts) - due) ** 2 / due).sum())


def test_whole_runs_pick_by_a_law_of_three_tokens() -> None:
    """20,000 picks through all policies, with a drafter that is wrong about the law."""
    counts: Counter[int] = Counter()
    for seed in range(200):
        policy = list(POLICIES)[seed % len(POLICIES)]
        drafts = ranked(off, Sampling(1.0, seed=seed))
        emitted = answer(policy, three, seed, drafts).emitted
        assert emitted == plain(three, seed)
        counts.update(emitted)
    assert sum(counts.values()) == 20_000
    assert excess([counts[token] for token in range(3)], three(())) < 13.8  # one case in 1000
    assert counts[1] / 20_000 == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("drafter", ["itself", "n-grams"])
def test_whole_runs_pick_by_the_law_after_each_token(drafter: str) -> None:
    counts = np.zeros((5, 5), int)
    for seed in range(40):
        sampling = Sampling(1.0, seed=seed)
        drafts = ranked(chain, sampling) if drafter == "itself" else repeated(sampling)
        emitted = answer("gardener", chain, seed, drafts).emitted
        assert emitted == plain(chain, seed)
        np.add.at(counts, ([PROMPT[-1], *emitted[:-1]], emitted), 1)
    off_by = sum(excess(row.tolist(), chain([token])) for token, row in enumerate(counts))
    assert off_by < 45.3  # one case in 1000, of 20 degrees of freedom


WORN = Sampling(1.0, repetition_penalty=1.4, presence_penalty=0.6, frequency_penalty=0.3, seed=0)


def worn(text: Sequence[int]) -> Sequence[float]:
    """`chain` with penalties for what stands in the prompt and in the end of the answer: with five
    tokens, those of all of it would soon be as large as they can be."""
    logits = [math.log(each) + 2.0 for each in chain(text)]  # of both signs
    start, end = text[: len(PROMPT)], text[len(PROMPT) :][-12:]
    scores = sampled.changed(logits, WORN, [*start, *end], len(PROMPT))
    return list(map(float, sampled.odds(scores)))


def test_whole_runs_follow_the_law_under_penalties_with_n_grams_over_repeating_text() -> None:
    """By rank: how often the likeliest token was picked, the second one, and so on."""
    hits, due = np.zeros(5), np.zeros(5)
    for seed in range(40):
        policy = list(POLICIES)[seed % len(POLICIES)]
        ring = answer(policy, worn, seed, repeated(Sampling(1.0, seed=seed)))
        assert ring.emitted == plain(worn, seed)
        text = list(PROMPT)
        for token in ring.emitted:
            law = np.array(worn(text))
            order = list(np.argsort(-law, kind="stable"))
            hits[order.index(token)] += 1
            due += law[order]
            text.append(token)
    assert ring.speculation.counts.accepted > 0, "something was guessed"
    assert float(((hits - due) ** 2 / due).sum()) < 18.5  # one case in 1000


@pytest.mark.parametrize("policy", POLICIES)
def test_the_text_is_that_of_plain_decoding_whatever_the_drafter_knows(policy: str) -> None:
    for seed in range(1000, 1003):
        text = plain(chain, seed)
        for law in (chain, wrong):
            for known in (seed, seed + 1):
                drafts = ranked(law, Sampling(1.0, seed=known))
                assert answer(policy, chain, seed, drafts).emitted == text


def test_knowing_the_noise_more_guesses_are_right() -> None:
    def accepted(known: bool, law: Law) -> float:
        rings = [
            answer("serial", chain, seed, ranked(law, Sampling(1.0, seed=seed if known else None)))
            for seed in range(10)
        ]
        return sum(ring.speculation.counts.accepted for ring in rings) / (10 * TOKENS)

    def vague(text: Sequence[int]) -> Sequence[float]:
        return [0.7 * each + 0.06 for each in chain(text)]

    assert accepted(True, chain) > 0.98  # all but those below which nothing is asked any more
    assert accepted(True, vague) > accepted(False, chain) + 0.1
