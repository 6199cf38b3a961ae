"""How fast a ring of machines that differ should be, and texts that nobody wrote."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from simulated import LAYERS, MODEL, PROMPT, TOKENS, library

from gardener.cluster.plan.rates import rate
from gardener.decoding.curves import Curve, Hop
from gardener.draft.ngram import NGram
from gardener.draft.timing import draft_curve
from gardener.errors import UserError
from gardener.holder.figures import Figures
from gardener.rings.simulate.foretell import Asked, foretell, fresh, profile_of
from gardener.rings.simulate.library import Library
from gardener.rings.simulate.loop import Loop
from gardener.rings.simulate.made_up import MadeUpDrafter, made_up, prompts
from gardener.rings.simulate.profile import HolderTerms, Profile

STAGES = (Curve(((1, 0.040), (16, 0.040), (32, 0.080))), Curve(((1, 0.020), (32, 0.020))))
HOPS = (Hop(0.001), Hop(0.010), Hop(0.002))
FREE = HolderTerms(0.0, 0.0)


def profile(draft: Curve | None = None, overhead_ms: float = 0.0) -> Profile:
    return profile_of(STAGES, HOPS, 4, draft, FREE, overhead_ms)


def asked(right: float, new_tokens: int = 48) -> Asked:
    """Three texts that are made up, and a drafter that is right so often."""
    texts = made_up(3, new_tokens, LAYERS)
    drafter = MadeUpDrafter(texts, right)
    return Asked(texts, prompts(3, new_tokens), new_tokens, 512, ("plain", "gardener"), [drafter])


def told(profile: Profile, asked: Asked) -> Mapping[str, Sequence[Figures]]:
    with asyncio.Runner(loop_factory=lambda: Loop(0)) as runner:
        return runner.run(foretell(profile, MODEL, asked))


def rates(profile: Profile, asked: Asked) -> tuple[float, float]:
    found = told(profile, asked)
    return rate(found["plain"], found["plain"]), rate(found["plain"], found["gardener"])


def test_each_stage_and_each_link_takes_its_own_time() -> None:
    """Plain decoding goes round the ring for each token, so that it can be reckoned by hand."""
    written = Asked(library(), [PROMPT], TOKENS, 512, ["plain"], [NGram()])
    plain = told(profile(), written)["plain"]
    assert rate(plain, plain) == pytest.approx(1 / (0.040 + 0.020 + 0.013), rel=1e-3)
    plain = told(profile(overhead_ms=3.5), written)["plain"]
    assert rate(plain, plain) == pytest.approx(1 / (0.080), rel=1e-3)


def test_the_same_comes_out_each_time_and_no_drafter_learns_from_the_time_before() -> None:
    texts = Asked(library(), [PROMPT], TOKENS, 512, ["plain", "gardener"], [NGram()])
    once = repr(told(profile(), texts))
    assert once == repr(told(profile(), texts))


def test_guesses_bring_more_the_better_they_are_and_less_the_longer_they_take() -> None:
    quick, slow = (profile(Curve(((1, seconds),))) for seconds in (0.002, 0.060))
    poor, good = rates(quick, asked(0.3)), rates(quick, asked(0.9))
    assert poor[0] == good[0]  # plain
    assert good[0] < poor[1] < 0.6 * good[1]
    assert rates(slow, asked(0.9))[1] < 0.8 * good[1]


def text_of(texts: Library, prompt: Sequence[int]) -> Sequence[int]:
    found = texts.get(prompt)
    assert found is not None
    return found.tokens


def test_a_guess_that_is_made_up_is_right_as_often_as_it_says() -> None:
    texts = made_up(20, 100, LAYERS)
    drafter, hits, places = MadeUpDrafter(texts, 0.7), [0, 0, 0], 0
    for prompt in prompts(20, 100):
        draft, tokens = drafter.open(prompt), text_of(texts, prompt)
        for place in range(len(prompt), len(tokens)):
            guesses = draft._guesses(tokens[len(prompt) - 1 : place])
            assert [guess.probability for guess in guesses] == pytest.approx([0.7, 0.12, 0.045])
            places += 1
            for rank, guess in enumerate(guesses):
                hits[rank] += guess.token == tokens[place]
    assert [hit / places for hit in hits] == pytest.approx([0.7, 0.12, 0.045], abs=0.03)
    wrong = draft._guesses([-1])
    assert not {guess.token for guess in wrong} & {tokens[len(prompt)]}
    assert draft._guesses(tokens[len(prompt) - 1 :])  # behind the end, too


def test_a_profile_of_another_ring_is_refused() -> None:
    with pytest.raises(UserError, match="`stages` is for a ring of 2 stages, and this one has 3"):
        profile().check(3)
    profile().check(2)


def test_what_a_drafter_has_learned_from_a_text_stays_behind() -> None:
    drafter = NGram()
    drafter.hit_rates.observe((3, 0, True), True)
    again = fresh(drafter)
    assert isinstance(again, NGram)
    learned, rates = (each.hit_rates.probability((3, 0, True)) for each in (drafter, again))
    assert learned > rates
    assert again.longest == drafter.longest


def test_a_drafter_that_answers_at_once_takes_no_time() -> None:
    assert draft_curve([NGram()], 32, 61) is None
