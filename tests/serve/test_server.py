"""A real server: its process, its stages, and what a client sees of them."""

from serving import MODEL, Server


def test_it_says_what_it_serves(server: Server) -> None:
    status, listed = server.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in listed["data"]] == [MODEL]
    assert listed["data"][0]["max_model_len"] == 8192


def test_it_answers(server: Server) -> None:
    asked = {"role": "user", "content": "Name one colour."}
    status, body = server.post(
        "/v1/chat/completions", model=MODEL, messages=[asked], max_tokens=4, temperature=0
    )
    assert status == 200
    assert body["choices"][0]["message"]["content"]
    assert body["usage"]["completion_tokens"] == 4
