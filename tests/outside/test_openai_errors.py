"""The official Python client is refused: each case is the exception that it knows for it."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest
from asking import WITHOUT_END, becomes_true, chat, client_of, running
from openai import OpenAI
from serving import Server


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with client_of(server) as opened:
        yield opened


def envelope(error: openai.APIStatusError) -> dict[str, Any]:
    """What the server said."""
    body = error.body
    assert isinstance(body, dict)
    assert {"message", "type", "param", "code"} <= body.keys()
    assert body["message"]
    return body


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "Hocus"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"tree": 3}}, "logit_bias"),
        ({"stop": ["a", ""]}, "stop"),
        ({"seed": "five"}, "seed"),
    ],
)
def test_a_wrong_field_is_named(client: OpenAI, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**{**chat(), **wrong})
    error = envelope(raised.value)
    assert error["type"] == "invalid_request_error"
    assert str(error["param"]).startswith(param)


def test_a_stream_is_refused_as_an_answer_is(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**chat(temperature=-1), stream=True)
    assert raised.value.param == "temperature"


def test_a_prompt_that_is_too_long_tells_both_numbers(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"90\d\d tokens.* 8192") as raised:
        client.chat.completions.create(**chat("tree " * 9000))
    assert envelope(raised.value)["code"] == "context_length_exceeded"


def test_another_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(**{**chat(), "model": "gpt-4o"})
    error = envelope(raised.value)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="smollm2-135m", input="tree")


@pytest.mark.parametrize("key", ["wrong", "a-key-of-the-test"])
def test_without_the_key_nothing_is_told(narrow: Server, key: str) -> None:
    with client_of(narrow, key) as stranger:
        with pytest.raises(openai.AuthenticationError) as raised:
            stranger.chat.completions.create(**chat())
        assert envelope(raised.value)["code"] == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()


def test_a_full_queue_says_when_to_come_again(narrow: Server) -> None:
    endless = chat(max_tokens=4000, extra_body=WITHOUT_END, stream=True)
    with client_of(narrow) as client, ExitStack() as held:
        first = held.enter_context(client.chat.completions.create(**endless))
        next(first)
        held.enter_context(client.chat.completions.create(**endless))
        with pytest.raises(openai.RateLimitError) as raised:
            client.chat.completions.create(**chat())
        assert int(raised.value.response.headers["retry-after"]) >= 1
        assert envelope(raised.value)["type"] == "rate_limit_error"
    assert becomes_true(lambda: running(narrow) == 0, seconds=1)
    with client_of(narrow) as client:
        assert client.chat.completions.create(**chat(max_tokens=2)).choices


def test_answers_go_on_in_a_ring_that_broke(narrow: Server) -> None:
    """The last test of this server: a stage of it dies under an answer, and is started again."""
    with client_of(narrow) as client:
        before = client.chat.completions.create(**chat()).choices[0].message.content
        long = chat(max_tokens=40, extra_body=WITHOUT_END, stream=True)
        with client.chat.completions.create(**long) as stream:
            undisturbed = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
        with client.chat.completions.create(**long) as stream:
            told = [next(stream)]
            narrow.process.stages()[2].kill()
            told += stream
        pieces = [chunk.choices[0].delta.content for chunk in told if chunk.choices]
        assert "".join(filter(None, pieces)) == "".join(filter(None, undisturbed))
        assert client.chat.completions.create(**chat()).choices[0].message.content == before
