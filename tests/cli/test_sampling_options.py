"""Options that say how tokens are picked: what becomes of them, and what a person is told."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_options import parsed

from gardener.cli.answered import Answered, as_object
from gardener.cli.program import Misuse
from gardener.cli.sampling import SamplingOptions
from gardener.errors import UserError
from gardener.holder.answer import Answer
from gardener.holder.figures import Figures
from gardener.protocol.logprobs import TokenLogprobs
from gardener.protocol.sampling import GREEDY, Sampling


def settled(folder: Path, options: SamplingOptions) -> tuple[Sampling, list[str]]:
    """The settings with the model in a folder, and what is said of them."""
    said: list[str] = []
    return options.sampling(folder, said.append), said


@pytest.fixture
def brings(tmp_path: Path) -> Path:
    """The folder of a model that has settings of its own."""
    fields = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
    (tmp_path / "generation_config.json").write_text(json.dumps(fields))
    return tmp_path


def given(*words: str) -> SamplingOptions:
    """What `generate` is called with."""
    found: SamplingOptions = parsed("generate", "hi", *words)["sampling"]
    return found


def test_every_option_is_a_setting() -> None:
    words = "--temperature 0.7 --top-p 0.9 --top-k 40 --min-p 0.05 --repetition-penalty 1.1"
    words += " --presence-penalty -0.5 --frequency-penalty 0.25 --seed 7 --min-tokens 3"
    words += " --logit-bias 42=-5 --logit-bias 7=1.5"
    expected = Sampling(0.7, 0.9, 40, 0.05, 1.1, -0.5, 0.25, ((42, -5.0), (7, 1.5)), 7, 3)
    assert given(*words.split()).over(GREEDY) == expected
    assert SamplingOptions().over(GREEDY) == GREEDY


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARDENER_TEMPERATURE", "0.5")
    monkeypatch.setenv("GARDENER_LOGIT_BIAS", "1=2 3=-4")
    monkeypatch.setenv("GARDENER_IGNORE_EOS", "true")
    found = given("--temperature", "0.25")
    assert (found.temperature, found.ignore_eos) == (0.25, True)
    assert found.over(GREEDY).logit_bias == ((1, 2.0), (3, -4.0))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"temperature": -1.0}, "--temperature is -1.0: it lies between 0 and 100"),
        ({"temperature": 1e-9}, "--temperature is 1e-09: take 0"),
        ({"top_p": 0.0}, "--top-p is 0, which leaves no token"),
        ({"top_k": -1}, "--top-k is -1"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty is 0.0: it lies between 0.01 and"),
        ({"seed": -1}, "--seed is -1: it lies between 0 and"),
        ({"logit_bias": ["5=1", "5=2"]}, "--logit-bias names token 5 more than once"),
        ({"logit_bias": ["5=200"]}, "--logit-bias of token 5 is 200"),
        ({"logit_bias": ["the=2"]}, "--logit-bias the=2: write the number of a token"),
        ({"logit_bias": ["5"]}, "--logit-bias 5: write the number of a token"),
    ],
)
def test_what_cannot_be_is_refused_with_the_name_of_the_option(
    options: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError) as found:
        SamplingOptions(**options)
    assert str(found.value).startswith(why)


def test_an_answer_cannot_be_shorter_than_asked_for() -> None:
    with pytest.raises(UserError, match="--min-tokens 9 is more than --max-new-tokens 8"):
        SamplingOptions(min_tokens=9).begun(8)


def test_one_seed_is_drawn_where_one_is_needed() -> None:
    one, other = (SamplingOptions(temperature=1.0).begun(8) for _ in range(2))
    assert one.seed is not None
    assert one.seed != other.seed
    assert SamplingOptions(sample=True).begun(8).seed is not None
    assert SamplingOptions(temperature=1.0, seed=5).begun(8).seed == 5
    for greedy in (SamplingOptions(), SamplingOptions(temperature=0.0, top_p=0.5)):
        assert greedy.begun(8) is greedy


def test_the_seed_is_told(tmp_path: Path) -> None:
    found, said = settled(tmp_path, SamplingOptions(temperature=0.7, top_p=0.9, seed=5))
    assert found == Sampling(0.7, 0.9, seed=5)
    assert said == ["sampling: temperature 0.7, top_p 0.9, seed 5"]


def test_of_the_likeliest_token_nothing_is_told_but_what_has_no_effect(tmp_path: Path) -> None:
    assert settled(tmp_path, SamplingOptions()) == (GREEDY, [])
    _, said = settled(tmp_path, SamplingOptions(top_p=0.9, top_k=5))
    assert said == ["temperature 0 takes the likeliest token: --top-p, --top-k has no effect"]


def test_the_models_own_settings_go_behind_what_is_given(brings: Path) -> None:
    assert settled(brings, SamplingOptions(seed=1))[0] == Sampling(seed=1)
    own, said = settled(brings, SamplingOptions(sample=True, seed=1))
    assert own == Sampling(0.6, 0.9, seed=1)
    assert said == ["sampling: temperature 0.6, top_p 0.9, seed 1"]
    mixed, _ = settled(brings, SamplingOptions(sample=True, top_p=0.5, top_k=9, seed=1))
    assert mixed == Sampling(0.6, 0.5, 9, seed=1)


def test_a_model_that_brings_none_is_sampled_at_temperature_1(tmp_path: Path) -> None:
    found, said = settled(tmp_path, SamplingOptions(sample=True, seed=1))
    assert found == Sampling(1.0, seed=1)
    assert said[0] == "the model brings no settings of its own for --sample: temperature 1 is taken"
    found, said = settled(tmp_path, SamplingOptions(sample=True, temperature=0.3, seed=1))
    assert found == Sampling(0.3, seed=1)
    assert said == ["sampling: temperature 0.3, seed 1"]


def test_a_model_that_wants_no_sampling_says_so(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"do_sample": false, "top_p": 0.9}')
    found, said = settled(tmp_path, SamplingOptions(sample=True, seed=1))
    assert found.is_greedy
    assert "give a --temperature to sample" in said[0]
    found, said = settled(tmp_path, SamplingOptions(sample=True, temperature=0.5, seed=1))
    assert found == Sampling(0.5, 0.9, seed=1)
    assert len(said) == 1


def test_log_probabilities_need_json() -> None:
    from gardener.cli.main import app

    with pytest.raises(Misuse, match="--logprobs adds to what --json prints"):
        app(["generate", "hi", "--logprobs", "2"], exit_on_error=False)


def test_json_has_the_settings_and_the_log_probabilities() -> None:
    said = [
        TokenLogprobs(-0.5, ((4, -0.5), (7, -1.5))),
        TokenLogprobs(-2.0, ((1, -0.1), (9, -2.0))),
    ]
    sampling = Sampling(0.7, seed=5, logit_bias=((42, -5.0),))
    one = Answer(Figures("plain", 3, 2), [4, 9], sampling=sampling, logprobs=said)
    found = json.loads(json.dumps(as_object(Answered([one], "exact", tied=True))))
    assert (found["sampling"]["temperature"], found["sampling"]["seed"]) == (0.7, 5)
    assert found["sampling"]["logit_bias"] == [[42, -5.0]]
    assert found["logprobs"] == [
        {"token_id": 4, "logprob": -0.5, "best": [[4, -0.5], [7, -1.5]]},
        {"token_id": 9, "logprob": -2.0, "best": [[1, -0.1], [9, -2.0]]},
    ]
    silent = Answered([Answer(Figures("plain", 3, 0))], "exact", tied=True)
    assert as_object(silent)["logprobs"] is None
