"""Snippets that connect other programs to the server, with its URL and a model."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

_QUESTION = "Say hello."


@dataclass(frozen=True)
class Snippet:
    """A text to copy."""

    id: str
    title: str
    """Title of its tab."""
    where: str
    """Where to use it, in a few words."""
    text: str


def snippets(url: str, model: str, *, keyed: bool, context: int | None = None) -> tuple[Snippet, ...]:
    """Return the snippets.

    Args:
        url: the server's URL without a path, such as `http://127.0.0.1:8000`.
        model: full name of a model, safe to show.
        keyed: whether an API key is required; a snippet never contains the key itself.
        context: context length of the model in tokens; None if unknown.
    """
    key = "YOUR-API-KEY" if keyed else "not-needed"
    base = f"{url}/v1"
    name = json.dumps(model, ensure_ascii=False)
    return (
        Snippet("curl", "curl", "Run in a shell.", _curl(base, model, key if keyed else None)),
        Snippet(
            "python",
            "OpenAI",
            "Python, needs the openai package.",
            f"""from openai import OpenAI

client = OpenAI(base_url="{base}", api_key="{key}")
stream = client.chat.completions.create(
    model={name},
    messages=[{{"role": "user", "content": "{_QUESTION}"}}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)""",
        ),
        Snippet(
            "anthropic",
            "Anthropic",
            "Python, needs the anthropic package.",
            f"""from anthropic import Anthropic

client = Anthropic(base_url="{url}", api_key="{key}")
message = client.messages.create(
    model={name},
    max_tokens=512,
    messages=[{{"role": "user", "content": "{_QUESTION}"}}],
)
print(message.content[0].text)""",
        ),
        Snippet(
            "continue",
            "Continue",
            "Add to models in ~/.continue/config.yaml.",
            f"""models:
  - name: mlxk-tui
    provider: openai
    model: {name}
    apiBase: {base}
    apiKey: {key}
    roles: [chat, edit, apply]""",
        ),
        Snippet(
            "zed",
            "Zed",
            f"Add to settings.json. Zed reads the key from MLXK_API_KEY ({key}).",
            _zed(base, model, context or 32_768),
        ),
        Snippet(
            "others",
            "Others",
            "Cline, Roo, Open WebUI and other OpenAI-compatible clients.",
            f"""Provider   OpenAI Compatible
Base URL   {base}
API key    {key}
Model ID   {model}""",
        ),
    )


def _curl(base: str, model: str, key: str | None) -> str:
    name = json.dumps(model, ensure_ascii=False)
    body = f"""{{
    "model": {name},
    "messages": [{{"role": "user", "content": "{_QUESTION}"}}]
  }}"""
    parts = [f"curl {base}/chat/completions", '-H "Content-Type: application/json"']
    parts += [f'-H "Authorization: Bearer {key}"'] if key is not None else []
    return " \\\n  ".join([*parts, f"-d {shlex.quote(body)}"])


def _zed(base: str, model: str, context: int) -> str:
    listed = {"name": model, "display_name": model.rpartition("/")[2], "max_tokens": context}
    return f"""{{
  "language_models": {{
    "openai_compatible": {{
      "mlxk": {{
        "api_url": "{base}",
        "available_models": [
          {json.dumps(listed, ensure_ascii=False)}
        ]
      }}
    }}
  }}
}}"""
