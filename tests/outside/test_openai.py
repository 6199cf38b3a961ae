"""The official Python client, against a real server: answers whole and streamed."""

import asyncio
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import processes
import pytest
from asking import QUESTION, WITHOUT_END, becomes_true, chat, client_of, running
from openai import APITimeoutError, AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from serving import MODEL, Server

FOREST = "🌱🌳🌲 木林森 🌱🌳🌲 木林森 🌱🌳🌲 木林森 🌱🌳"
"""What goes on with characters of several tokens each."""


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with client_of(server) as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(home: None) -> str:
    """What `gardener generate` writes, on a ring of its own."""
    program = "from gardener.cli.start import gardener; gardener()"
    options = ("--local", "2", "--max-new-tokens", "48")
    command = [processes.PYTHON, "-c", program, "generate", QUESTION, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=80)
    return done.stdout.removesuffix("\n")


def streamed(client: OpenAI, **asked: Any) -> list[ChatCompletionChunk]:
    with client.chat.completions.create(stream=True, **asked) as stream:
        return list(stream)


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_whole_and_streamed_are_what_the_command_writes(client: OpenAI, reference: str) -> None:
    whole = client.chat.completions.create(**chat(max_tokens=48))
    assert whole.choices[0].message.content == reference
    assert text_of(streamed(client, **chat(max_tokens=48))) == reference


def test_an_answer_tells_its_length_and_why_it_ended(client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat(max_tokens=5))
    (choice,) = answer.choices
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert answer.id.startswith("chatcmpl-")
    assert (answer.model_extra or {})["gardener"]
    greeting = client.chat.completions.create(**chat("Say hello.", max_tokens=200))
    assert greeting.choices[0].finish_reason == "stop"


def test_a_request_has_an_id_that_the_header_tells(client: OpenAI) -> None:
    first = client.chat.completions.create(**chat(max_tokens=1))
    other = client.chat.completions.create(**chat(max_tokens=1))
    assert first._request_id
    assert other._request_id not in {None, first._request_id}


def test_a_stream_begins_with_the_role_and_ends_with_the_reason(client: OpenAI) -> None:
    chunks = streamed(client, **chat(max_tokens=8))
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert [c.choices[0].delta.role for c in chunks if c.choices[0].delta.role] == ["assistant"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)


def test_a_stream_tells_its_usage_when_asked(client: OpenAI) -> None:
    chunks = streamed(client, **chat(max_tokens=8), stream_options={"include_usage": True})
    assert chunks[-1].choices == []
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 8
    assert usage.prompt_tokens > 8


def test_no_character_is_cut(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": FOREST, "max_tokens": 40, "temperature": 0}
    whole = client.completions.create(**asked)
    with client.completions.create(**asked, stream=True) as stream:
        chunks = [chunk.choices[0].text for chunk in stream if chunk.choices]
    assert "".join(chunks) == whole.choices[0].text
    assert any(ord(letter) > 0xFFFF for letter in whole.choices[0].text), "this tests nothing"
    assert not any("\ufffd" in chunk for chunk in chunks[:-1])


def test_a_completion_goes_on_with_a_text(client: OpenAI) -> None:
    prompt = "One, two, three, four, five, six,"
    answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=4, temperature=0)
    assert answer.choices[0].text.startswith(" seven")
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    assert answer.usage.prompt_tokens == 12


def test_models(client: OpenAI) -> None:
    (model,) = client.models.list()
    assert model.id == MODEL
    assert client.models.retrieve(MODEL) == model


@pytest.mark.parametrize("as_list", [False, True])
def test_stop(client: OpenAI, reference: str, as_list: bool) -> None:
    end = reference.split()[6]
    stop = ["\x00 never", end] if as_list else end
    asked = chat(max_tokens=48, stop=stop)
    answer = client.chat.completions.create(**asked).choices[0]
    assert answer.message.content == reference[: reference.index(end)]
    assert answer.finish_reason == "stop"
    chunks = streamed(client, **asked)
    assert text_of(chunks) == answer.message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_second_limit_wins(client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat(max_tokens=9, max_completion_tokens=3))
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_logprobs_belong_to_the_tokens_of_the_text(client: OpenAI) -> None:
    asked = chat("Write five emoji: 🌱🌳🌲", logprobs=True, top_logprobs=3)
    answer = client.chat.completions.create(**asked).choices[0]
    assert answer.logprobs is not None
    content = answer.logprobs.content or []
    assert len(content) == 24
    told = b"".join(bytes(each.bytes or ()) for each in content)
    assert told.decode(errors="replace") == answer.message.content
    for each in content:
        best = [top.logprob for top in each.top_logprobs]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        assert each.logprob == best[0] <= 0, "the likeliest is what was asked for"
        assert each.top_logprobs[0].token == each.token
    parts = [c.choices[0] for c in streamed(client, **asked)]
    streamed_content = [e for p in parts if p.logprobs for e in p.logprobs.content or ()]
    assert streamed_content == content


def test_logprobs_of_a_completion(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "One, two, three,", "max_tokens": 6}
    answer = client.completions.create(**asked, temperature=0, logprobs=2).choices[0]
    told = answer.logprobs
    assert told is not None
    assert "".join(told.tokens or ()) == answer.text
    assert len(told.token_logprobs or ()) == len(told.top_logprobs or ()) == 6
    for token, value, best in zip(
        told.tokens or (), told.token_logprobs or (), told.top_logprobs or (), strict=True
    ):
        assert best[token] == value == max(best.values())


def test_a_seed_gives_its_text_again(client: OpenAI) -> None:
    def drawn(seed: int) -> str | None:
        asked = chat("Tell a story.", temperature=1, seed=seed)
        answer: ChatCompletion = client.chat.completions.create(**asked)
        return answer.choices[0].message.content

    assert drawn(5) == drawn(5) != drawn(6)


def test_tools_that_are_not_called(client: OpenAI) -> None:
    weather = {
        "name": "weather",
        "description": "The weather in a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    }
    tools = [{"type": "function", "function": weather}]
    choice = client.chat.completions.create(**chat(tools=tools)).choices[0]
    assert choice.message.content
    assert choice.message.tool_calls is None
    assert choice.finish_reason in {"stop", "length"}


def test_content_may_be_parts_each_on_a_line_of_its_own(client: OpenAI) -> None:
    def answer(content: Any) -> str | None:
        whole: ChatCompletion = client.chat.completions.create(**chat(content))
        return whole.choices[0].message.content

    first, second = ({"type": "text", "text": text} for text in (QUESTION, "Be brief."))
    assert answer([first]) == answer(QUESTION)
    assert answer([first, second]) == answer(f"{QUESTION}\nBe brief.") != answer(QUESTION)


def test_the_next_turn_computes_what_is_new_alone(client: OpenAI) -> None:
    first = client.chat.completions.create(**chat("Name three trees of the north.", max_tokens=16))
    turns = [
        {"role": "user", "content": "Name three trees of the north."},
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "And of the south?"},
    ]
    second = client.chat.completions.create(**{**chat(), "messages": turns})
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached is not None
    assert first.usage.prompt_tokens <= cached < second.usage.prompt_tokens


def test_a_client_that_goes_away_frees_its_slots_at_once(client: OpenAI, server: Server) -> None:
    asked = chat(max_tokens=4000, extra_body=WITHOUT_END)
    with client.chat.completions.create(stream=True, **asked) as stream:
        for _ in range(5):
            next(stream)
        assert running(server) == 1
    assert becomes_true(lambda: running(server) == 0, seconds=1)


def test_a_client_that_waits_no_longer_frees_its_slots_too(client: OpenAI, server: Server) -> None:
    asked = chat(max_tokens=4000, extra_body=WITHOUT_END)
    with pytest.raises(APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(**asked)
    assert becomes_true(lambda: running(server) == 0, seconds=1)


async def whole(client: AsyncOpenAI, question: str) -> str | None:
    answer: ChatCompletion = await client.chat.completions.create(**chat(question))
    return answer.choices[0].message.content


async def in_pieces(client: AsyncOpenAI, question: str) -> str:
    text = ""
    async with await client.chat.completions.create(stream=True, **chat(question)) as stream:
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    return text


async def test_two_clients_at_once_get_what_each_would_get_alone(server: Server) -> None:
    questions = ["Name three rivers.", "What is a rose?"]
    settings: dict[str, Any] = {
        "base_url": f"{server.url}/v1",
        "api_key": "none",
        "max_retries": 0,
    }
    async with AsyncOpenAI(**settings) as one, AsyncOpenAI(**settings) as other:
        alone = [await whole(one, question) for question in questions]
        asked = [(client, question) for client in (one, other) for question in questions]
        for ask in (whole, in_pieces):
            together = await asyncio.gather(*[ask(*each) for each in asked])
            assert together == alone * 2


@pytest.mark.parametrize("path", ["/health", "/ready", "/version", "/metrics"])
def test_what_is_not_of_openai_answers(server: Server, path: str) -> None:
    with urllib.request.urlopen(server.url + path, timeout=10) as response:
        assert response.status == 200
        assert response.read()
