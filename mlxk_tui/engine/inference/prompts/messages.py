"""Converts messages for chat templates, or to a plain transcript for models without a template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlxk_tui.engine.inference.prompts.request_checks import validation_error

_ROLES = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


def format_transcript(messages: list[dict[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """Format a conversation as a plain transcript; a single user message is only its text.

    Returns:
        The text, and the stop sequences that a transcript implies.
    """
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"], ()
    lines = [f"{_ROLES.get(m['role'], m['role'])}: {m['content']}" for m in messages]
    return "\n\n".join((*lines, "Assistant:")), ("\nUser:", "\nSystem:")


def normalize_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message in the form that chat templates expect: text content, tool arguments as objects.

    Raises:
        OpError: `validation_error`: it has no role, or its content is not text.
    """
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise validation_error("A message has no role. Use 'system', 'user', 'assistant' or 'tool'.")
    plain = {name: _replace_all_surrogates(value) for name, value in message.items() if value is not None}
    plain["content"] = _content_text(message.get("content"))
    calls = plain.get("tool_calls")
    if isinstance(calls, list):
        plain["tool_calls"] = [_with_parsed_arguments(call) for call in calls]
    return plain


def _content_text(content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return replace_surrogates(content)
    if isinstance(content, (list, tuple)):
        parts = []
        for part in content:
            text = part.get("text") if isinstance(part, Mapping) else part
            if not isinstance(text, str):
                raise validation_error(
                    "A message contains something other than text, which this model cannot read."
                )
            parts.append(replace_surrogates(text))
        return "".join(parts)
    raise validation_error("The content of a message must be text.")


def _with_parsed_arguments(call: object) -> object:
    """Return a tool call with its arguments as an object, which most templates expect."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments) if arguments else {}
        except (ValueError, RecursionError):
            return call
        return {**call, "function": {**function, "arguments": parsed}}
    return call


def merge_system_message(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Prepend the system message to the first user message; return None if there is none."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    merged_content = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{**messages[1], "content": merged_content}, *messages[2:]]


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates (from bytes that were not UTF-8) by U+FFFD, because tokenizers reject them."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _replace_all_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, Mapping):
        return {replace_surrogates(str(name)): _replace_all_surrogates(item) for name, item in value.items()}
    return [_replace_all_surrogates(item) for item in value] if isinstance(value, (list, tuple)) else value
