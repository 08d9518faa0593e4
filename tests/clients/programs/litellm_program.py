"""Runs litellm with the server at SERVER_URL; prints the outcome of each case as JSON."""

import json
import os
from typing import Any

import litellm

URL, MODEL = os.environ["SERVER_URL"], os.environ["SERVER_MODEL"]
LONG = [{"role": "user", "content": "word " * 20_000}]
SHORT = [{"role": "user", "content": "What does verify do?"}]
OPENAI: dict[str, Any] = {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1", "api_key": "none"}
ANTHROPIC: dict[str, Any] = {"model": f"anthropic/{MODEL}", "api_base": URL, "api_key": "none"}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def outcome(**asked: Any) -> Any:
    """Return the answer, or the name of the exception."""
    try:
        answer = litellm.completion(**asked, num_retries=0, max_tokens=asked.pop("limit", 20))
    except Exception as error:
        return {"raised": type(error).__name__}
    if asked.get("stream"):
        chunks = list(answer)
        return {"text": "".join(chunk.choices[0].delta.content or "" for chunk in chunks)}
    choice = answer.choices[0]
    calls = [call.function.name for call in choice.message.tool_calls or ()]
    return {"text": choice.message.content, "calls": calls, "reason": choice.finish_reason}


def main() -> None:
    told = {}
    for name, api in (("openai", OPENAI), ("anthropic", ANTHROPIC)):
        told[name] = {
            "short": outcome(**api, messages=SHORT, temperature=0),
            "streamed": outcome(**api, messages=SHORT, temperature=0, stream=True),
            "long": outcome(**api, messages=LONG),
            "long streamed": outcome(**api, messages=LONG, stream=True),
            "unknown": outcome(**{**api, "model": api["model"] + "-nobody"}, messages=SHORT),
            "forced": outcome(**api, messages=SHORT, tools=[TOOL], tool_choice="required"),
        }
    print(json.dumps(told))


main()
