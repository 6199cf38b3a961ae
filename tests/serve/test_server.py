"""A real server: its process, its stages, and what a client sees of them."""

import http.client
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import Process, at, free_ports
from serving import MODEL, Server

ASKED = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell me a long story of the sea."}],
    "temperature": 0,
    "ignore_eos": True,
}


def lines(server: Server, **more: object) -> Iterator[str]:
    """The lines of a streamed chat, as they come."""
    host = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=60)
    headers = {"content-type": "application/json", "authorization": f"Bearer {server.key}"}
    body = json.dumps({**ASKED, "stream": True, **more})
    connection.request("POST", "/v1/chat/completions", body, headers)
    try:
        response = connection.getresponse()
        assert response.status == 200
        while line := response.readline():
            if text := line.decode().strip():
                yield text
    finally:
        connection.close()


def chunks(told: list[str]) -> list[dict[str, object]]:
    return [json.loads(line[6:]) for line in told if line.startswith("data: {")]


def content(told: list[str]) -> str:
    found: list[dict[str, object]] = chunks(told)
    choices = [chunk["choices"][0] for chunk in found if chunk.get("choices")]  # type: ignore[index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_it_says_what_it_serves(server: Server) -> None:
    status, listed = server.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in listed["data"]] == [MODEL]
    assert listed["data"][0]["max_model_len"] == 8192


def test_streamed_and_whole_are_the_same_text(server: Server) -> None:
    status, whole = server.post("/v1/chat/completions", **ASKED, max_tokens=12)
    assert status == 200
    told = list(lines(server, max_tokens=12))
    assert told[-1] == "data: [DONE]"
    assert content(told) == whole["choices"][0]["message"]["content"]
    assert whole["usage"]["completion_tokens"] == 12
    again = server.post("/v1/chat/completions", **ASKED, max_tokens=12)[1]
    cached = again["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached == again["usage"]["prompt_tokens"] - 1


def test_two_clients_at_once(server: Server) -> None:
    def ask(_: int) -> str:
        return content(list(lines(server, max_tokens=12)))

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(ask, range(2)))) == 1


def test_an_answer_goes_on_when_a_stage_that_was_killed_is_back(server: Server) -> None:
    undisturbed = content(list(lines(server, max_tokens=40)))
    stream = lines(server, max_tokens=40)
    told = [next(stream) for _ in range(5)]
    stages = server.process.stages()
    before = server.process.err.count("stage 2 was lost")
    stages[2].kill()
    server.process.until(lambda: server.process.err.count("stage 2 was lost") > before)
    status, ready = server.get("/ready")
    assert status == 503
    assert "stage 2 was lost" in ready["error"]["message"]
    assert "killed by SIGKILL" in ready["error"]["message"]
    told += stream
    assert any(line.startswith(": stage 2 was lost") for line in told), told
    assert told[-1] == "data: [DONE]"
    assert content(told) == undisturbed
    assert chunks(told)[-1]["gardener"]["interruptions"] == 1  # type: ignore[index]
    assert server.is_ready()
    assert server.process.stages()[2].pid != stages[2].pid


def test_it_ends_with_ctrl_c_while_its_ring_is_not_there() -> None:
    peer, here, port = free_ports(3)
    ring = ("--peer", at(peer), "--listen", at(here))
    with Process("serve", *ring, "--port", str(port)) as process:
        process.heard("waiting for stage")
        status, ready = Server(process, f"http://{at(port)}").get("/ready")
        assert status == 503
        assert "waiting for stage" in ready["error"]["message"]
        process.signal(signal.SIGINT)
        assert process.status() == 130
        assert "Traceback" not in process.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--host", "0.0.0.0"), "--api-key"),
        (("--tls-cert", "/no/such.pem", "--tls-key", "/no/such.key"), "cannot be used"),
        (("--model", "/no/such/model"), "/no/such/model"),
    ],
)
def test_what_cannot_be_served_ends_in_a_sentence(options: tuple[str, ...], says: str) -> None:
    with Process("serve", "--local", "1", "--port", str(*free_ports(1)), *options) as process:
        assert process.status() == 1
        error = process.err.splitlines()[-1]
        assert error.startswith("error: ")
        assert says in error


def test_without_its_packages_it_names_the_extra() -> None:
    before = "import sys; sys.modules['starlette'] = None"
    with Process("serve", "--local", "1", before=before) as process:
        assert process.status() == 1
        assert "pip install 'gardener-node[serve]'" in process.err.splitlines()[-1]
