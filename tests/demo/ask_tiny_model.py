"""The child process of test_tiny_model.py: loads a model with mlx-lm and answers each line of stdin.

A separate process, because importing mlx_lm permanently lowers the limit of open files.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from mlx_lm import load, stream_generate


def main(folder: str) -> None:
    """Print the features found by the tokenizer wrapper, then answer each request of stdin greedily."""
    model: Any
    tokenizer: Any
    model, tokenizer = load(folder)[:2]
    start = tokenizer.tool_call_start
    _write({"has_thinking": tokenizer.has_thinking, "tool_call_start": start})
    for line in sys.stdin:
        request = json.loads(line)
        text = tokenizer.apply_chat_template(request["messages"], tokenize=False, **request["template"])
        prompt = tokenizer.encode(text, add_special_tokens=False)
        answer: dict[str, Any] = {"prompt": text, "prompt_tokens": len(prompt), "text": "", "tokens": 0}
        if request["max_tokens"]:
            for step in stream_generate(model, tokenizer, prompt, max_tokens=request["max_tokens"]):
                answer["text"] += step.text
                answer["tokens"], answer["finish_reason"] = step.generation_tokens, step.finish_reason
        if start and start in answer["text"]:
            inside = answer["text"].split(start)[1].split(tokenizer.tool_call_end)[0]
            answer["tool_call"] = tokenizer.tool_parser(inside, request["template"].get("tools"))
        _write(answer)


def _write(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
