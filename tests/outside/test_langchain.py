"""LangChain's own tests of a chat model, with its client of OpenAI pointed at the server.

What a text model of 135M parameters cannot do is switched off by the properties that the tests have
for that. All others run as they are.
"""

from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from serving import MODEL, Server


class TestGardener(ChatModelIntegrationTests):
    """A model that writes text and calls no tool."""

    @pytest.fixture(autouse=True)
    def _asked(self, server: Server) -> None:
        self._url = f"{server.url}/v1"

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": MODEL,
            "base_url": self._url,
            "api_key": "none",
            "stream_usage": True,
            "max_tokens": 48,
            "max_retries": 0,
        }

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def model_override_value(self) -> str:
        return MODEL
