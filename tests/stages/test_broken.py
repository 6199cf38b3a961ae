"""Rows of which a stage computes no numbers: real stages in float16, of which a layer overflows
after one of the tokens. A guess that overflows leaves no trace; a token of the text ends the
request."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from device_stages import compute_on
from real_stages import RealStages

from gardener.decoding.tree import Guess
from gardener.model.checkpoint.slices import Slice
from gardener.protocol.sampling import GREEDY, Sampling
from gardener.stages import load

POISON = 60
"""The token after which layer 2 computes what float16 cannot hold."""

CUTS = {
    "one stage": [Slice(0, 4, 4)],
    "in the middle": [Slice(0, 2, 4), Slice(2, 3, 4), Slice(3, 4, 4)],
    "at the end": [Slice(0, 2, 4), Slice(2, 4, 4)],
}
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
HOW = {
    "greedy": (GREEDY, None),
    "told": (GREEDY, 2),
    "noise": (Sampling(1.0, logit_bias=((POISON, -100.0),), seed=3), None),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_to_overflow(tmp_path_factory.mktemp("model"), in_queries=False)


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_to_overflow(tmp_path_factory.mktemp("model"), in_queries=True)


def made_to_overflow(made: Path, *, in_queries: bool) -> Path:
    """Hidden states of one token grow with a direction of its own, which layer 2 alone reads: in
    the queries of some heads, or in the feed-forward part."""
    model: Any = tiny.make("llama", made)
    with torch.no_grad():
        table = model.model.embed_tokens.weight
        table[:, 0] = 0.0
        table[POISON] = 0.0
        table[POISON, 0] = 60.0
        for number, layer in enumerate(model.model.layers):
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
            if number != 2:
                continue
            if in_queries:
                layer.self_attn.q_proj.weight[:4, 0] = 30000.0
                continue
            for part in (layer.mlp.gate_proj, layer.mlp.up_proj):
                part.weight[:, 0] = 300.0
        model.lm_head.weight[POISON] = 0.0  # never the likeliest
    model.half().save_pretrained(made)
    return made


def ring(
    folder: Path, cut: Sequence[Slice], monkeypatch: pytest.MonkeyPatch, quant: str = "none"
) -> RealStages:
    def half(folder: Path, held: Slice) -> Any:
        return load.load_stage(folder, held, dtype="float16", quant=quant)

    monkeypatch.setattr("real_stages.load_stage", half)
    return RealStages(folder, cut, random.Random(2))


@pytest.mark.parametrize("place", ["a processor", "a device without graphs"])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("cut", CUTS)
def test_a_guess_that_overflows_changes_nothing(
    cut: str, how: str, place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_on(place, monkeypatch)
    sampling, best = HOW[how]
    plain = ring(folder, CUTS[cut], monkeypatch)
    asked = plain.ask(PROMPT, 24, sampling=sampling, logprobs=best)
    plain.finish()
    assert asked.reason == "length"
    expected = [*PROMPT, *asked.emitted]
    assert POISON not in expected

    def drafts(text: Sequence[int]) -> tuple[Guess, ...]:
        """The poison beside what is right, and now and then above it."""
        right = expected[len(text)] if len(text) < len(expected) else 7
        return Guess(right, 0.5), Guess(POISON, 0.4), Guess((right + 1) % POISON, 0.05)

    for policy in ("gardener", "serial", "flowspec"):
        tried = ring(folder, CUTS[cut], monkeypatch)
        named: list[int] = []
        judged = tried._judge

        def seen(tried: RealStages = tried, judged: Any = judged, named: list[int] = named) -> None:
            named.extend(each.layer for each in tried.verdicts[0].broken)
            judged()

        monkeypatch.setattr(tried, "_judge", seen)
        guessed = tried.ask(
            PROMPT, 24, drafts=drafts, policy=policy, sampling=sampling, logprobs=best
        )
        tried.finish()
        assert (guessed.reason, guessed.emitted) == ("length", asked.emitted)
        assert guessed.logprobs == asked.logprobs
        assert set(named) == {2}
        assert tried.failures == []


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("at", [0, 3, 7])
def test_a_prompt_that_overflows_ends_the_request_and_names_the_layer(
    at: int, cut: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ring(folder, CUTS[cut], monkeypatch)
    asked = made.ask([*PROMPT[:at], POISON, *PROMPT[at + 1 :]], 8)
    beside = made.ask(PROMPT, 8)
    made.finish()
    assert (asked.reason, asked.emitted) == ("failed", [])
    assert asked.broken == 2
    assert (beside.reason, len(beside.emitted)) == ("length", 8)


@pytest.mark.parametrize("quant", ["none", "int4", "int8"])
@pytest.mark.parametrize("where", ["folder", "queries"])
@pytest.mark.parametrize("prompt", [[POISON], [*PROMPT, POISON], [POISON, *PROMPT]])
def test_quantised_kernels_do_not_make_numbers_of_what_is_none(
    quant: str,
    where: str,
    prompt: list[int],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ring(request.getfixturevalue(where), CUTS["at the end"], monkeypatch, quant)
    asked = made.ask(prompt, 8)
    made.finish()
    assert (asked.reason, asked.emitted, asked.broken) == ("failed", [], 2)


@pytest.mark.parametrize("policy", ["plain", "gardener"])
def test_a_text_that_runs_into_it_is_kept_up_to_there(
    policy: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bias has the poison written as the fifth token."""
    made = ring(folder, CUTS["in the middle"], monkeypatch)
    bias = Sampling(logit_bias=((POISON, 100.0),))
    asked = made.ask(
        PROMPT, 8, sampling=bias, policy=policy, drafts=lambda text: (Guess(POISON, 0.9),)
    )
    made.finish()
    assert (asked.reason, asked.emitted, asked.broken) == ("failed", [POISON], 2)
