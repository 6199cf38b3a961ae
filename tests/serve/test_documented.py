"""docs/server.md names every field that the server knows."""

import re
from pathlib import Path

import pytest

from gardener.serve import unsupported
from gardener.serve.requests import ChatRequest, CompletionRequest

DOCUMENT = Path(__file__).parents[2] / "docs" / "server.md"
NAMED = set(re.findall(r"`(\w+)`", DOCUMENT.read_text(encoding="utf-8")))


@pytest.mark.parametrize("request_type", [ChatRequest, CompletionRequest])
def test_fields_that_are_taken(request_type: type[ChatRequest] | type[CompletionRequest]) -> None:
    assert request_type.model_fields.keys() - NAMED == set()


def test_fields_that_are_refused() -> None:
    refused = {*unsupported.BOTH, *unsupported.CHAT, *unsupported.COMPLETIONS}
    assert refused - NAMED == set()
