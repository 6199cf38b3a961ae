"""What requests mean, and which are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import words

from gardener.holder.prompter import Prompter
from gardener.protocol.sampling import GREEDY, MAX_SEED, Sampling
from gardener.serve.errors import ApiError
from gardener.serve.question import Question, usual_sampling
from gardener.serve.requests import MAX_STOPS, ChatRequest, CompletionRequest

CHATML = """{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}
{{- c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{% endfor %}"""
TOOLED = CHATML + "{% if tools %}{{ tools | tojson }}{% endif %}{{ extra }}[assistant]"
USUAL = Sampling(temperature=0.5, top_p=0.9)
LOOK: dict[str, Any] = {"type": "function", "function": {"name": "look", "strict": False}}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": 5}'}}
WHY = {"role": "user", "content": "Why?"}


@pytest.fixture(scope="module")
def prompter(tmp_path_factory: pytest.TempPathFactory) -> Prompter:
    folder = tmp_path_factory.mktemp("model")
    tiny.make("llama", folder, vocab_size=words.ROWS, max_position_embeddings=512)
    words.name_bytes(folder, (), TOOLED, adds_bos=False)
    return Prompter(folder)


def chat(prompter: Prompter, **fields: Any) -> Question:
    body = {"model": "m", "messages": [WHY], **fields}
    return ChatRequest.read(json.dumps(body).encode()).question(prompter, USUAL)


def complete(prompter: Prompter, **fields: Any) -> Question:
    body = {"model": "m", "prompt": "Why?", **fields}
    return CompletionRequest.read(json.dumps(body).encode()).question(prompter, USUAL)


def written(prompter: Prompter, question: Question) -> str:
    return str(prompter.backend.decode(list(question.tokens)))


def refusal(prompter: Prompter, **fields: Any) -> ApiError:
    ask = complete if "prompt" in fields else chat
    with pytest.raises(ApiError) as caught:
        ask(prompter, **fields)
    assert caught.value.status == 400
    return caught.value


def test_a_request_without_settings_is_answered_as_usual(prompter: Prompter) -> None:
    question = chat(prompter, unknown=[5], user="me", n=1, store=False, tools=None, stop=None)
    assert written(prompter, question) == "[user]Why?[assistant]"
    assert question == Question(question.tokens, USUAL)


def test_settings_stand_in_place_of_the_usual_ones(prompter: Prompter) -> None:
    question = chat(
        prompter,
        temperature=0,
        top_k=-1,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=-1,
        frequency_penalty=1.5,
        logit_bias={"5": -100, "7": 1.5},
        seed=7,
        min_tokens=2,
        max_tokens=9,
        stop=["a", "b"],
        stop_token_ids=[3],
        ignore_eos=True,
        policy="plain",
        logprobs=True,
        top_logprobs=3,
    )
    assert question.sampling == Sampling(
        top_p=0.9,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=-1.0,
        frequency_penalty=1.5,
        logit_bias=((5, -100.0), (7, 1.5)),
        seed=7,
        min_tokens=2,
    )
    assert (question.new_tokens, question.stops, question.stop_tokens) == (9, ("a", "b"), (3,))
    assert (question.ignore_eos, question.policy, question.logprobs) == (True, "plain", 3)


def test_the_newer_of_two_names_counts(prompter: Prompter) -> None:
    assert chat(prompter, max_tokens=3, max_completion_tokens=5).new_tokens == 5
    assert chat(prompter, max_completion_tokens=5).new_tokens == 5
    assert chat(prompter, stop="x").stops == ("x",)
    assert chat(prompter, logprobs=True).logprobs == 0
    assert chat(prompter, logprobs=False).logprobs is None
    assert complete(prompter, logprobs=2).logprobs == 2


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**63 - 1, 0])
def test_any_seed_of_64_bits_is_one(prompter: Prompter, seed: int) -> None:
    kept = chat(prompter, seed=seed).sampling.seed
    assert kept is not None
    assert 0 <= kept <= MAX_SEED
    assert kept == chat(prompter, seed=seed).sampling.seed
    assert kept != chat(prompter, seed=5).sampling.seed


def test_content_may_be_parts_of_text(prompter: Prompter) -> None:
    parts = [{"type": "text", "text": "Why"}, {"type": "text", "text": "not?"}]
    question = chat(prompter, messages=[{"role": "user", "content": parts}])
    assert written(prompter, question) == "[user]Why\nnot?[assistant]"


def test_all_roles_become_messages(prompter: Prompter) -> None:
    question = chat(
        prompter,
        messages=[
            {"role": "developer", "content": "Be brief."},
            WHY,
            {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
            {"role": "tool", "content": "5", "tool_call_id": "1"},
        ],
    )
    assert written(prompter, question) == (
        '[system]Be brief.[user]Why?[assistant]look({"at": 5})[tool]5[assistant]'
    )


def test_tools_go_into_the_template(prompter: Prompter) -> None:
    question = chat(prompter, tools=[LOOK], parallel_tool_calls=False, tool_choice="auto")
    assert written(prompter, question) == f"[user]Why?{json.dumps([LOOK])}[assistant]"
    assert (question.tools, question.most_calls, question.note) == (("look",), 1, "")
    without = chat(prompter, tools=[LOOK], tool_choice="none")
    assert (written(prompter, without), without.tools) == ("[user]Why?[assistant]", ())


def test_a_template_that_takes_no_tools_is_said(prompter: Prompter, tmp_path: Path) -> None:
    (tmp_path / "plain.jinja").write_text(CHATML)
    config = prompter._directory
    question = chat(Prompter(config, template=str(tmp_path / "plain.jinja")), tools=[LOOK])
    assert question.tools == ()
    assert "takes no tools" in question.note


def test_variables_go_to_the_template(prompter: Prompter) -> None:
    question = chat(prompter, chat_template_kwargs={"extra": "!"})
    assert written(prompter, question) == "[user]Why?![assistant]"
    error = refusal(prompter, chat_template_kwargs={"tokenize": False})
    assert error.param == "chat_template_kwargs"
    assert "tokenize is not a variable" in error.message


def test_a_prompt_is_text_or_tokens(prompter: Prompter) -> None:
    text = complete(prompter, prompt="Why?")
    assert written(prompter, text) == "Why?"
    for prompt in (["Why?"], list(text.tokens), [list(text.tokens)]):
        assert complete(prompter, prompt=prompt) == text


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"n": 2}, "n", "n is 2: one answer"),
        ({"n": True}, "n", "n is true"),
        ({"response_format": {"type": "json_object"}}, "response_format", "to a grammar"),
        ({"functions": [{}]}, "functions", "send tools"),
        ({"tool_choice": "required"}, "tool_choice", "no model is made to call"),
        ({"tool_choice": LOOK}, "tool_choice", "no model is made to call"),
        ({"audio": {"voice": "x"}}, "audio", "this model writes text"),
        ({"modalities": ["text", "audio"]}, "modalities", "this model writes text"),
        ({"prediction": {"content": "x"}}, "prediction", "by the ring itself"),
        ({"store": True}, "store", "nothing is kept"),
        ({"prompt": "x", "best_of": 2}, "best_of", "best_of is 2"),
        ({"prompt": "x", "echo": True}, "echo", "echo is true"),
        ({"prompt": "x", "suffix": "y"}, "suffix", 'suffix is "y"'),
        ({"prompt": ["x", "y"]}, "prompt", "there are 2 prompts"),
        ({"prompt": [-1]}, "prompt", "holds token -1"),
        ({"prompt": [words.ROWS]}, "prompt", "holds token 512"),
        ({"prompt": [1.5]}, "prompt", "a text, or a list"),
        ({"prompt": [True]}, "prompt", "a text, or a list"),
        ({"prompt": []}, "prompt", "the prompt is empty"),
        ({"prompt": None}, "prompt", "a text, or a list"),
        ({"temperature": 1000}, "temperature", "temperature is 1000.0: it lies between 0 and 100"),
        ({"temperature": "1"}, "temperature", 'temperature is "1"'),
        ({"top_p": 0}, "top_p", "top_p is 0"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens is 0"),
        ({"max_tokens": 5, "min_tokens": 6}, "min_tokens", "min_tokens is 6, more than"),
        ({"seed": 2**70}, "seed", "seed is"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "'x' is no number of a token"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "between -100 and 100"),
        ({"logit_bias": {"512": 1}}, "logit_bias", "names token 512: this model has tokens 0 to"),
        ({"stop_token_ids": [5, -5]}, "stop_token_ids", "stop_token_ids names token -5"),
        ({"top_logprobs": 2}, "top_logprobs", "set logprobs to true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "top_logprobs is 21"),
        ({"stop": ["x"] * (MAX_STOPS + 1)}, "stop", f"give {MAX_STOPS} at most"),
        ({"stop": ["x", ""]}, "stop", "one is empty"),
        ({"stop": ["x", "y" * 257]}, "stop", "stop 2 has 257 characters: give it 256 at most"),
        ({"logit_bias": {"5" * 5000: 1}}, "logit_bias", "is no number of a token"),
        ({"policy": "x"}, "policy", "take one of plain"),
        ({"model": None}, "model", "model is null"),
        ({"messages": []}, "messages", "messages is []"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "has no content"),
        ({"messages": [WHY, {"role": "x"}]}, "messages[1].role", 'role is "x"'),
        ({"messages": [{**WHY, "tool_calls": [CALL]}]}, "messages[0]", "only the assistant calls"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type", 'tools[0].type is "custom"'),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content",
            "part 0 is of type 'image_url': this model reads text alone",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "f", "arguments": "{"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
            "no JSON",
        ),
    ],
)
def test_what_cannot_be_is_named(
    prompter: Prompter, fields: dict[str, Any], param: str, said: str
) -> None:
    error = refusal(prompter, **fields)
    assert error.param == param
    assert said in error.message


def test_a_prompt_that_is_too_long_is_told_with_both_numbers(prompter: Prompter) -> None:
    error = refusal(prompter, messages=[{"role": "user", "content": "x" * 600}])
    assert (error.param, error.code) == ("messages", "context_length_exceeded")
    assert "617 tokens, and with the answer there may be 512" in error.message


def test_who_asks_over_http_hears_of_no_folder_and_of_no_option(
    prompter: Prompter, tmp_path: Path
) -> None:
    other = Prompter(prompter._directory)
    other._tokenizer.chat_template = "{{ raise_exception('no') }}"
    error = refusal(other)
    assert error.message == "the model's chat template failed (no)"
    tiny.make("llama", tmp_path, vocab_size=words.ROWS, max_position_embeddings=512)
    words.name_bytes(tmp_path)
    bare = refusal(Prompter(tmp_path))
    assert bare.message.startswith("this model has no chat template: ask /v1/completions")
    long = refusal(prompter, messages=[{"role": "user", "content": "x" * 600}])
    for said in (error, bare, long, refusal(prompter, prompt=[700])):
        assert "--" not in said.message
        assert "/tmp" not in said.message


def test_each_of_many_messages_is_looked_for(prompter: Prompter) -> None:
    """Number 1 is not taken for there because number 11 is."""
    other = Prompter(prompter._directory)
    other._tokenizer.chat_template = TOOLED.replace(
        "{% for m in messages %}", "{% for m in messages if m is not sameas messages[1] %}"
    )
    error = refusal(other, messages=[WHY] * 12)
    assert "leaves the text of message 2 (role user) out" in error.message


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[1]", b'"x"', b'{"model": "\\ud800"}', b'{"model": "\xff"}'),
        *(b'{"a": NaN}', b'{"a": 1e999}', b"[" * 100_000),
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        ChatRequest.read(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("config", "usual"),
    [
        (None, Sampling(temperature=1.0)),
        ({"eos_token_id": 2}, Sampling(temperature=1.0)),
        ({"do_sample": False, "top_p": 0.8}, Sampling(temperature=1.0, top_p=0.8)),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20},
            Sampling(temperature=0.6, top_k=20),
        ),
    ],
)
def test_what_is_usual_comes_with_the_model(
    tmp_path: Path, config: dict[str, Any] | None, usual: Sampling
) -> None:
    if config is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(config))
    assert usual_sampling(tmp_path) == usual
    assert usual_sampling(tmp_path) != GREEDY
