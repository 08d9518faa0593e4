"""/v1/completions: texts, lists of texts, tokens."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from mlxk_tui.engine.protocol import Generation
from tests.engine.conftest import needs_mlx
from tests.server.served import BABBLER, COMPLETIONS, GREEDY, Served

pytestmark = needs_mlx

BODY: dict[str, Any] = {"model": BABBLER, "prompt": "Hello, world!", "max_tokens": 8, "temperature": 0}


def test_a_text_goes_on_as_the_engine_goes_on(served: Served) -> None:
    text, finished = served.own(Generation(prompt="Hello, world!", sampling=GREEDY, max_tokens=8), BABBLER)
    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
        whole = client.completions.create(**BODY)
        pieces = [chunk.choices[0].text for chunk in client.completions.create(**BODY, stream=True)]
    assert whole.choices[0].text == "".join(pieces) == text
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == finished.usage.prompt_tokens
    assert whole.usage.completion_tokens == 8


def test_a_list_of_prompts_gets_an_answer_each(served: Served) -> None:
    single = [served.post(COMPLETIONS, {**BODY, "prompt": prompt}).json for prompt in ("Hello", "How are")]
    both = served.post(COMPLETIONS, {**BODY, "prompt": ["Hello", "How are"], "n": 2}).json
    texts = [choice["text"] for choice in both["choices"]]
    assert texts == [single[i // 2]["choices"][0]["text"] for i in range(4)]
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    assert both["usage"]["prompt_tokens"] == sum(one["usage"]["prompt_tokens"] for one in single)


def test_tokens_and_lists_of_tokens_are_prompts(served: Served) -> None:
    one = served.post(COMPLETIONS, {**BODY, "prompt": [40, 41, 42]}).json
    assert one["usage"]["prompt_tokens"] == 3
    two = served.post(COMPLETIONS, {**BODY, "prompt": [[40, 41, 42], [43, 44]]}).json
    assert two["choices"][0]["text"] == one["choices"][0]["text"]
    assert two["usage"]["prompt_tokens"] == 5


def test_echo_repeats_the_prompt(served: Served) -> None:
    plain = served.post(COMPLETIONS, BODY).text
    assert served.post(COMPLETIONS, {**BODY, "echo": True}).text == "Hello, world!" + plain
    events = served.post(COMPLETIONS, {**BODY, "echo": True, "stream": True}).events
    assert "".join(event["choices"][0]["text"] for event in events) == "Hello, world!" + plain


def test_log_probabilities_have_offsets(served: Served) -> None:
    logprobs = served.post(COMPLETIONS, {**BODY, "logprobs": 2}).json["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == 8
    assert all(len(top) <= 2 for top in logprobs["top_logprobs"])
    assert logprobs["text_offset"][:2] == [0, len(logprobs["tokens"][0])]


def test_a_bias_bans_a_token(served: Served) -> None:
    banned = served.post(COMPLETIONS, {**BODY, "logprobs": 0}).json["choices"][0]["logprobs"]["tokens"][0]
    ids = {str(token): -100 for token in range(7, 330)}
    first = served.post(COMPLETIONS, {**BODY, "logprobs": 0, "logit_bias": {**ids}, "max_tokens": 1}).json
    assert first["choices"][0]["logprobs"]["tokens"][:1] != [banned]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("suffix", "end"),
        ("best_of", 4),
        ("prompt", []),
        ("prompt", ""),
        ("prompt", [[]]),
        ("prompt", ["a"] * 65),
        ("prompt", ["a", 1]),
    ],
)
def test_what_is_not_done_here_is_refused_by_name(served: Served, field: str, value: object) -> None:
    refused = served.post(COMPLETIONS, {**BODY, field: value})
    assert (refused.status, refused.error["param"].split("[")[0]) == (400, field)
    assert served.post(COMPLETIONS, {**BODY, "prompt": [1, 2], "echo": True}).error["param"] == "echo"
