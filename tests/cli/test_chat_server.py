"""A chat with a server: what is sent, what is read, and what is said when it goes wrong. The server
is a few lines of this test; the real one is asked in tests/serve."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from processes import free_ports

from gardener.cli.chat.dialogue import ChatMessage
from gardener.cli.chat.knobs import Knobs
from gardener.cli.chat.server import ServerSource
from gardener.cli.chat.source import Part, ServerError, TurnFigures
from gardener.errors import GardenerError, UserError

MODELS = {"data": [{"id": "small", "max_model_len": 512}, {"id": "large"}]}


class Fake:
    """Answers with what a test puts into it."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status, self.headers = 200, {"content-type": "text/event-stream"}
        self.models: Any = MODELS
        self.body = b""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.keys.append(self.headers["authorization"])
                known = self.path == "/v1/models" and fake.models is not None
                self._send(200 if known else 404, {}, json.dumps(fake.models).encode())

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                fake.asked.append(json.loads(self.rfile.read(length)))
                self._send(fake.status, fake.headers, fake.body)

            def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def says(self, *chunks: Any, done: bool = True) -> None:
        events = [f": comment\n\ndata: {json.dumps(each)}\n\n" for each in chunks]
        self.body = "".join([*events, "data: [DONE]\n\n" if done else ""]).encode()


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    thread = Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def ask(
    url: str, *, key: str | None = None, model: str | None = None, knobs: Knobs | None = None
) -> tuple[list[Part], TurnFigures, ServerSource, GardenerError | None]:
    """One question; what went wrong, if anything did while it was answered."""

    async def main() -> tuple[list[Part], TurnFigures, ServerSource, GardenerError | None]:
        figures, parts, error = TurnFigures(), [], None
        messages = [ChatMessage("system", "Be brief."), ChatMessage("user", "Why?")]
        async with ServerSource(url, key, model) as source:
            try:
                async with aclosing(source.answer(messages, knobs or Knobs(), figures)) as answer:
                    async for part in answer:
                        parts.append(part)  # noqa: PERF401 - those before an error are wanted
            except GardenerError as caught:
                error = caught
        return parts, figures, source, error

    return asyncio.run(main())


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, **more}], "usage": None}


def test_an_answer_is_read_as_it_comes_with_its_figures(fake: Fake) -> None:
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 20},
    }
    last = delta("", finish_reason="stop")
    last["gardener"] = {"accepted": 5, "drafted": 9, "segments": 3, "policy": "gardener"}
    last["gardener"] |= {"note": "x\ny", "finish": "eos"}
    role = {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    fake.says(role, delta("Be"), delta("cause"), last, {"choices": [], "usage": usage})
    knobs = Knobs(max_tokens=9).set("temperature", "0.5")
    parts, figures, source, error = ask(fake.url, key="secret", knobs=knobs)
    assert error is None
    assert parts == [Part("Be"), Part("cause")]
    assert (source.model, source.context) == ("small", 512)
    assert (figures.prompt, figures.cached, figures.tokens) == (30, 20, 7)
    assert (figures.accepted, figures.drafted, figures.segments) == (5, 9, 3)
    assert (figures.policy, figures.finish, figures.note) == ("gardener", "stop", "x\ny")
    assert figures.first is not None
    assert fake.keys == ["Bearer secret"]
    assert fake.asked == [
        {
            "model": "small",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Why?"},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 9,
            "temperature": 0.5,
        }
    ]


def test_a_server_of_ours_tells_what_had_been_guessed(fake: Fake) -> None:
    fake.models = {"data": [{"id": "small", "owned_by": "gardener"}]}
    guessed, missed = ({**delta(text), "gardener": {"missed": text == "b"}} for text in "ab")
    fake.says(guessed, missed, delta("c", finish_reason="stop"))
    parts, _, source, _ = ask(fake.url)
    assert parts == [Part("a", guessed=True), Part("b"), Part("c")]
    assert source.tells
    assert fake.asked[0]["gardener_pieces"] is True


def test_a_model_is_taken_by_name(fake: Fake) -> None:
    fake.says(delta("x", finish_reason="length"))
    parts, figures, source, _ = ask(fake.url, model="large")
    assert (parts, figures.finish, source.context) == ([Part("x")], "length", None)
    with pytest.raises(UserError, match="no model 'huge': it has small, large"):
        ask(fake.url, model="huge")
    fake.models = None
    assert ask(fake.url, model="huge")[2].model == "huge", "not every server has a list"
    with pytest.raises(ServerError, match="refused with 404"):
        ask(fake.url)


@pytest.mark.parametrize(
    ("status", "code", "after", "told"),
    [
        (429, "queue_full", "7", "refused with 429: no room /retry in 7 s"),
        (503, None, "", "refused with 503: no room /retry asks again"),
        (400, "context_length_exceeded", "", "refused with 400: no room /new begins anew"),
    ],
)
def test_a_refusal_is_said_with_what_to_do(
    fake: Fake, status: int, code: str | None, after: str, told: str
) -> None:
    fake.status, fake.headers = status, {"retry-after": after}
    fake.body = json.dumps({"error": {"message": "no\nroom", "code": code}}).encode()
    parts, _, _, error = ask(fake.url)
    assert parts == []
    assert isinstance(error, ServerError)
    assert f"{error} {error.out}".endswith(told)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'data: {"error": {"message": "stage 2 was lost"}}\n\n', "the answer broke: stage 2 was"),
        (b"", "ended the answer without a reason"),
        (b"data: 7\n\n", "does not speak OpenAI's interface"),
        (b"data: {\n\n", "does not speak OpenAI's interface"),
        (b'data: {"choices": [3]}\n\n', "does not speak OpenAI's interface"),
        (b'data: {"choices": 3}\n\n', "does not speak OpenAI's interface"),
        (b'data: {"choices": [], "usage": {"x": 1}}\n\n', "does not speak OpenAI's interface"),
    ],
)
def test_an_answer_that_breaks_is_kept_as_far_as_it_came(
    fake: Fake, body: bytes, told: str
) -> None:
    fake.body = f"data: {json.dumps(delta('so far'))}\n\n".encode() + body
    parts, figures, _, error = ask(fake.url)
    assert parts == [Part("so far")]
    assert figures.finish == "error"
    assert error is not None
    assert told in str(error)


def test_something_else_than_a_stream_is_told(fake: Fake) -> None:
    fake.headers, fake.body = {"content-type": "text/html"}, b"<html>"
    error = ask(fake.url)[3]
    assert error is not None
    assert "text/event-stream" in str(error)


def test_a_server_that_is_not_there_is_said_so() -> None:
    (port,) = free_ports(1)
    with pytest.raises(ServerError, match=rf"127.0.0.1:{port} does not answer"):
        ask(f"http://127.0.0.1:{port}")


def test_a_piped_chat_with_a_server_imports_no_torch(fake: Fake) -> None:
    fake.says(delta("Because.\x1b[2J", finish_reason="stop"))
    program = (
        "import sys; from gardener.cli import main\n"
        f"sys.argv = ['gardener', 'chat', '--url', {fake.url!r}]\n"
        "try:\n    main.main()\nexcept SystemExit: pass\n"
        "print(*{'torch', 'transformers', 'prompt_toolkit'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="Why?\n/set top_p 0.5\nAnd then?",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "Because.�[2J\nBecause.�[2J\n\n"
    assert "top_p 0.5" in done.stderr
    assert [each["content"] for each in fake.asked[1]["messages"]] == [
        "Why?",
        "Because.\x1b[2J",
        "And then?",
    ]
    assert (fake.asked[1]["top_p"], "top_p" in fake.asked[0]) == (0.5, False)
