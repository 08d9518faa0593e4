"""Messages of a conversation as chat templates want them, and as plain text without a template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlxk_tui.engine.inference.prompts.request_checks import invalid

_ROLES = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


def transcript(messages: list[dict[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """Write a conversation plainly; a lone user message is just its text, to be gone on with."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"], ()
    lines = [f"{_ROLES.get(m['role'], m['role'])}: {m['content']}" for m in messages]
    return "\n\n".join((*lines, "Assistant:")), ("\nUser:", "\nSystem:")


def plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as templates want it: text content, tool arguments as objects.

    Raises:
        OpError: `validation_error`: it has no role, or holds something other than text.
    """
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise invalid("A message has no role. Give 'system', 'user', 'assistant' or 'tool'.")
    plain = {name: _clean_all(value) for name, value in message.items() if value is not None}
    plain["content"] = _text_of(message.get("content"))
    calls = plain.get("tool_calls")
    if isinstance(calls, list):
        plain["tool_calls"] = [_with_object(call) for call in calls]
    return plain


def _text_of(content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return without_surrogates(content)
    if isinstance(content, (list, tuple)):
        parts = []
        for part in content:
            text = part.get("text") if isinstance(part, Mapping) else part
            if not isinstance(text, str):
                raise invalid("A message holds something other than text, which this model cannot read.")
            parts.append(without_surrogates(text))
        return "".join(parts)
    raise invalid("The content of a message must be text.")


def _with_object(call: object) -> object:
    """Return a tool call with its arguments as an object, which most templates want."""
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


def fold_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Return a conversation with its system message at the head of the first question; None without one."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    merged_content = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{**messages[1], "content": merged_content}, *messages[2:]]


def without_surrogates(text: str) -> str:
    """Replace lone surrogates (bytes that were no UTF-8), which tokenizers refuse."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _clean_all(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, Mapping):
        return {without_surrogates(str(name)): _clean_all(item) for name, item in value.items()}
    return [_clean_all(item) for item in value] if isinstance(value, (list, tuple)) else value
