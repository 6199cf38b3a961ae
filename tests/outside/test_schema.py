"""Requests made up from OpenAI's published schema: whatever comes, the server answers as that
schema has it, or refuses with an error of OpenAI's form, and never fails."""

import json
from collections import Counter
from copy import deepcopy
from importlib.resources import files
from typing import Any

import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import MODEL, Server

PATHS = ("/chat/completions", "/completions", "/models", "/models/{model}")
NOT_OURS = (("/chat/completions", "get"), ("/models/{model}", "delete"))
"""Operations on stored answers and on models that were tuned."""

JSON, EVENTS = "application/json", "text/event-stream"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
MOST_TOKENS = 4
REFUSED = {
    *("audio", "best_of", "echo", "function_call", "functions", "logit_bias", "modalities", "n"),
    *("prediction", "reasoning_effort", "response_format", "service_tier", "store", "suffix"),
    *("tool_choice", "tools", "web_search_options"),
}
"""Fields that ask for what the server refuses by name, most of the time."""

answered = Counter[tuple[str, bool]]()
"""How many requests to each path got an answer, by whether it was streamed."""


def published() -> dict[str, Any]:
    """The schema of OpenAI's interface, less paths that are not ours, with what its text says and
    its types do not: how streams are written, and errors."""
    text = files("llm_comply").joinpath("specs/openai_chat.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    schema["paths"] = {path: schema["paths"][path] for path in PATHS}
    for path, method in NOT_OURS:
        del schema["paths"][path][method]
    chat, text = (
        schema["paths"][path]["post"]["responses"]["200"]["content"] for path in PATHS[:2]
    )
    whole = schema["components"]["schemas"]["CreateCompletionResponse"]
    part = deepcopy(whole)
    part["properties"]["choices"]["items"]["properties"]["finish_reason"]["nullable"] = True
    part["properties"]["usage"] = {"nullable": True, "allOf": [part["properties"]["usage"]]}
    text[EVENTS] = {"schema": event_with(part)}
    chat[EVENTS] = {"schema": event_with(chat[EVENTS]["schema"])}
    error = {JSON: {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["responses"] |= {
                status: {"description": "Refused", "content": error}
                for status in ("400", "404", "405", "422")
            }
    return schema


def event_with(chunk: dict[str, Any]) -> dict[str, Any]:
    """The schema of an event of a stream: a chunk, or what tells the end."""
    data = [{"enum": ["[DONE]"]}, {"contentMediaType": JSON, "contentSchema": chunk}]
    return {"type": "object", "required": ["data"], "properties": {"data": {"anyOf": data}}}


def made(edges: bool) -> Any:
    """`edges`: first each field alone with values at, and beyond, the edges of what it takes."""
    config = schemathesis.Config()
    config.projects.default.generation.max_examples = 25
    config.projects.default.generation.deterministic = True
    config.projects.default.phases.coverage.enabled = edges
    return schemathesis.openapi.from_dict(published(), config=config)


schema = made(edges=True)


def cheap(body: Any) -> Any:
    """The same request for our model, with a short answer."""
    if not isinstance(body, dict):
        return body
    body = {**body, "model": MODEL}
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(body.get(name), int) and body[name] > MOST_TOKENS:
            body[name] = MOST_TOKENS
    if body.get("max_completion_tokens") is None and body.get("max_tokens") is None:
        body["max_tokens"] = MOST_TOKENS
    return body


def plain(body: Any) -> Any:
    """The same request for text alone."""
    if not isinstance(body, dict):
        return body
    body = {name: value for name, value in body.items() if name not in REFUSED}
    if "messages" in body:
        body["messages"] = [{"role": "user", "content": json.dumps(body["messages"])[:60]}]
    if not isinstance(body.get("prompt", ""), str):
        body["prompt"] = json.dumps(body["prompt"])[:60]
    if body.get("stream") in (None, False):  # it hardly ever is anything else
        body["stream"] = len(body) % 2 == 0
    return body


def ask(case: schemathesis.Case, server: Server) -> None:
    streamed = isinstance(case.body, dict) and case.body.get("stream") is True
    response = case.call_and_validate(base_url=f"{server.url}/v1", checks=CHECKS)
    if response.status_code == 200:
        answered[case.operation.path, streamed] += 1
        assert response.headers["content-type"][0].startswith(EVENTS if streamed else JSON)
        assert response.content.endswith(b"\n\ndata: [DONE]\n\n") == streamed


@schema.parametrize()
def test_whatever_comes_fits_the_schema(case: schemathesis.Case, server: Server) -> None:
    case.body = cheap(case.body)
    ask(case, server)


@made(edges=False).include(method="POST").parametrize()
def test_what_is_asked_of_text_alone_fits(case: schemathesis.Case, server: Server) -> None:
    case.body = cheap(plain(case.body))
    ask(case, server)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", PATHS[:2])
def test_many_of_these_requests_were_answered(path: str, streamed: bool) -> None:
    """The test above looked at something."""
    assert answered[path, streamed] >= 5
