"""What can be asked of a ring, and what is refused before anything is sent."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.streaming import llama
from gardener.errors import UserError
from gardener.holder.prompter import Prompter
from gardener.protocol.sampling import Sampling
from gardener.rings.opened import OpenRing
from gardener.rings.settings import RingSettings

TOKENIZER = llama()
IM_END = cast(int, TOKENIZER.token_to_id("<|im_end|>"))
BAUM = cast(int, TOKENIZER.token_to_id("▁Baum"))


class Opened:
    """A holder that notes the limits of what it is asked."""

    limits: Any = None
    sampling: Any = None

    def prepare(self, *_: Any) -> None:
        """It is ready for anything."""

    def open(self, prompt: Any, policy: Any, limits: Any, *_: Any, sampling: Any, **__: Any) -> Any:
        self.limits, self.sampling = limits, sampling


def asked(**wanted: Any) -> Opened:
    prompter: Any = SimpleNamespace(
        backend=TOKENIZER,
        context=64,
        vocabulary=TOKENIZER.get_vocab_size(),
        eos=frozenset({3}),
        encode=lambda *_, **__: [1, 2],
    )
    holder = Opened()
    settings = cast(RingSettings, SimpleNamespace(simulate=None, crowded=False))
    ring = OpenRing(settings, cast(Any, holder), Path(), cast(Prompter, prompter))
    ring.ask("hello", max_new_tokens=8, policy="plain", **wanted)
    return holder


@pytest.mark.parametrize("named", ["<|im_end|>", IM_END])
def test_a_stop_token_ends_an_answer_as_the_models_own_do(named: str | int) -> None:
    assert asked(stop_tokens=[named]).limits.eos == {3, IM_END}
    assert asked(stop_tokens=[named], ignore_eos=True).limits.eos == {IM_END}


def test_a_stop_token_may_be_what_one_is_written_like() -> None:
    assert asked(stop_tokens=["▁Baum"]).limits.eos == {3, BAUM}


def test_an_answer_that_may_not_end_at_once_does_not_end_with_a_stop_token_either() -> None:
    holder = asked(stop_tokens=["</s>"], sampling=Sampling(min_tokens=2))
    assert holder.sampling.eos == (3, TOKENIZER.token_to_id("</s>"))


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (
            {"stop_tokens": ["a garden"]},
            "'a garden' is not a token of this model.*or give a stop",
        ),
        ({"stop_tokens": [""]}, "stop token '' is not a token of this model"),
        ({"stop_tokens": [4000]}, "stop_tokens names token 4000: this model has tokens 0 to"),
        ({"stop_tokens": [-1]}, "stop_tokens names token -1: this model has"),
        ({"stop_tokens": ["\udcff"]}, "is not UTF-8 text"),
        ({"stop": ["\udcff"]}, "is not UTF-8 text"),
    ],
)
def test_stops_that_cannot_be(wanted: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        asked(**wanted)
