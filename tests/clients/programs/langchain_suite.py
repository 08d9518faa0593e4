"""LangChain's standard integration tests of a chat model with the server at SERVER_URL."""

import os
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class Common(ChatModelIntegrationTests):
    """Settings for both of OpenAI's APIs."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": os.environ["SERVER_MODEL"],
            "base_url": f"{os.environ['SERVER_URL']}/v1",
            "api_key": "none",
            "temperature": 0,
            "max_tokens": 300,
            "max_retries": 0,
            "stream_usage": True,
            "reasoning_effort": "none",
            **self.api,
        }

    api: dict[str, Any] = {}

    @property
    def model_override_value(self) -> str:
        return os.environ["SERVER_OTHER_MODEL"]

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> Any:
        return {"invoke": [], "stream": []}


class TestChat(Common):
    """Over /v1/chat/completions."""


class TestResponses(Common):
    """Over /v1/responses."""

    api = {"use_responses_api": True}
