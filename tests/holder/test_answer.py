"""How a request is asked: what it says to the ring, and what comes back of it."""

import asyncio
from typing import Any, cast

import loopback
import pytest
from test_text import TOKENIZER, encode
from tokenizers import Tokenizer, decoders, models

from gardener.decoding.policy import Bounds, make
from gardener.holder.answer import Answer, Wanted, answer, ask, completed, uninterrupted
from gardener.holder.figures import Figures
from gardener.holder.piece import Piece
from gardener.holder.prompter import Prompter
from gardener.protocol.logprobs import TokenLogprobs
from gardener.protocol.sampling import GREEDY, Sampling


class FakePrompter:
    backend = TOKENIZER
    context = loopback.CONTEXT
    vocabulary = 257
    eos = frozenset({9, 4})


PROMPTER = cast(Prompter, FakePrompter())


class Opened:
    """A holder that notes how a request is opened."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.settings: dict[str, Any] = {}

    def open(self, *given: Any, **settings: Any) -> None:
        self.calls.append(given)
        self.settings = settings

    @property
    def limits(self) -> Any:
        return self.calls[-1][2]

    @property
    def text(self) -> Any:
        return self.calls[-1][4]


def opened(**wanted: Any) -> Opened:
    holder = Opened()
    ask(cast(Any, holder), PROMPTER, make("plain", Bounds()), Wanted((1, 2), 16, **wanted))
    return holder


def test_usually_it_is_the_likeliest_token_up_to_the_end() -> None:
    holder = opened()
    assert holder.settings == {"sampling": GREEDY, "logprobs": None}
    assert holder.limits.eos == {4, 9}


def test_settings_go_to_the_ring_with_a_seed_and_the_tokens_that_may_not_end_it() -> None:
    holder = opened(sampling=Sampling(0.7, top_p=0.9, min_tokens=3), logprobs=2)
    sampling = holder.settings["sampling"]
    assert sampling == Sampling(0.7, 0.9, min_tokens=3, eos=(4, 9), seed=sampling.seed)
    assert sampling.seed is not None
    assert holder.settings["logprobs"] == 2


def test_a_seed_that_is_given_stays_and_what_is_complete_changes_no_more() -> None:
    once = completed(Sampling(1.0, seed=5, min_tokens=1), PROMPTER)
    assert once.seed == 5
    assert completed(once, PROMPTER) == once
    assert completed(Sampling(seed=5), PROMPTER) == Sampling(seed=5)


def test_without_an_end_nothing_ends_it_but_its_length() -> None:
    assert opened(ignore_eos=True).limits.eos == frozenset()


@pytest.mark.parametrize("least", [0, 3, 4])
def test_what_ends_the_answer_also_makes_its_text(least: int) -> None:
    """The limits tell the text of each token."""
    holder = opened(stops=("b",), sampling=Sampling(min_tokens=least))
    text, ended = "", False
    for token in encode("ab-abc"):
        assert not ended
        ended = holder.limits.ends(token)
        text += holder.text.take()
        if ended:
            break
    assert (text, ended) == ("a" if least < 2 else "ab-a", True)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"sampling": Sampling(min_tokens=17)}, "min_tokens is 17, more than .* which are 16"),
        ({"logprobs": 21}, "logprobs is 21: it lies between 0 and 20"),
        ({"logprobs": -1}, "logprobs is -1"),
        ({"sampling": Sampling(logit_bias=((257, 1.0),))}, "names token 257: .* 0 to 256"),
    ],
)
def test_what_cannot_be_asked(wanted: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        opened(**wanted)


def test_more_ends_than_a_request_can_name() -> None:
    prompter = FakePrompter()
    prompter.eos = frozenset(range(65))
    with pytest.raises(ValueError, match="and 65 tokens end an answer"):
        completed(Sampling(min_tokens=1), cast(Prompter, prompter))


def test_log_probabilities_are_kept_with_their_tokens() -> None:
    one, two = TokenLogprobs(-0.5), TokenLogprobs(-1.0)
    found = Answer(Figures("plain", 3))
    for piece in (Piece((4,), "a", (one,)), Piece((5,), "", (two,)), Piece((), "b")):
        found.take(piece, 1.0)
    assert (found.tokens, found.logprobs, found.text) == ([4, 5], [one, two], "ab")


def test_a_tokenizer_that_fails_costs_the_text_and_not_the_answer() -> None:
    prompter = FakePrompter()
    spaces: dict[str, int] = {" " * (number + 1): number for number in range(5)}
    prompter.backend = Tokenizer(models.BPE(spaces, []))
    prompter.backend.decoder = decoders.Strip(" ", 9, 9)  # panics: nothing is left to cut

    async def scenario() -> None:
        async with loopback.ring(1) as made, loopback.holding(made) as holder:
            wanted = Wanted(loopback.PROMPT, 8, ignore_eos=True)
            got = await answer(holder, cast(Prompter, prompter), make("plain", Bounds()), wanted)
            assert (got.tokens, got.error, got.reason) == (loopback.truth(8), None, "length")
            assert got.text == "\N{REPLACEMENT CHARACTER}" * 8
            assert str(got.text_fault).startswith("PanicException: ")

    loopback.run(scenario)


def test_a_stop_token_ends_an_answer_and_is_no_text() -> None:
    async def scenario() -> None:
        async with loopback.ring(1) as made, loopback.holding(made) as holder:
            truth = loopback.truth(8)
            last = truth[3]
            wanted = Wanted(loopback.PROMPT, 8, ignore_eos=True, stop_tokens=[last])
            got = await answer(holder, PROMPTER, make("plain", Bounds()), wanted)
            assert got.tokens == truth[: truth.index(last) + 1]
            assert got.reason == "eos"
            assert got.text == TOKENIZER.decode(got.tokens[:-1])

    loopback.run(scenario)


def test_an_answer_says_with_which_settings_it_was_written() -> None:
    async def scenario() -> None:
        async with loopback.ring(1) as made, loopback.holding(made) as holder:
            wanted = Wanted(loopback.PROMPT, 8, sampling=Sampling(0.7))
            session = ask(holder, PROMPTER, make("plain", Bounds()), wanted)
            assert session.sampling.seed is not None
            session.close()
            got = await answer(holder, PROMPTER, make("plain", Bounds()), wanted)
            assert got.sampling.temperature == 0.7
            assert got.sampling.seed not in {None, session.sampling.seed}
            await asyncio.sleep(0)

    loopback.run(scenario)


def test_who_measures_counts_no_answer_in_which_the_ring_broke() -> None:
    figures = Figures("plain", 3)
    assert uninterrupted(Answer(figures)).error is None
    assert uninterrupted(Answer(figures, error="lost", interruptions=1)).error == "lost"
    error = uninterrupted(Answer(figures, interruptions=1)).error
    assert error == "the ring broke while it was written, so its times tell nothing"
