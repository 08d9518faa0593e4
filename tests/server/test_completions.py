"""/v1/completions: texts, lists of texts, tokens."""

from __future__ import annotations

from typing import Any

import pytest

from mlxk_tui.engine.generation import GenerationRequest
from tests.engine.conftest import needs_mlx
from tests.server.served import BABBLER, COMPLETIONS, GREEDY, Served
from tests.support.clients import openai

pytestmark = needs_mlx

BODY: dict[str, Any] = {"model": BABBLER, "prompt": "Hello, world!", "max_tokens": 8, "temperature": 0}


@pytest.mark.slow
def test_completion_matches_the_engine(served: Served) -> None:
    text, finished = served.own(
        GenerationRequest(prompt="Hello, world!", sampling=GREEDY, max_tokens=8), BABBLER
    )
    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
        whole = client.completions.create(**BODY)
        pieces = [chunk.choices[0].text for chunk in client.completions.create(**BODY, stream=True)]
    assert whole.choices[0].text == "".join(pieces) == text
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == finished.usage.prompt_tokens
    assert whole.usage.completion_tokens == 8


def test_each_prompt_of_a_list_gets_an_answer(served: Served) -> None:
    single = [served.post(COMPLETIONS, {**BODY, "prompt": prompt}).json for prompt in ("Hello", "How are")]
    both = served.post(COMPLETIONS, {**BODY, "prompt": ["Hello", "How are"], "n": 2}).json
    texts = [choice["text"] for choice in both["choices"]]
    assert texts == [single[i // 2]["choices"][0]["text"] for i in range(4)]
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    assert both["usage"]["prompt_tokens"] == sum(one["usage"]["prompt_tokens"] for one in single)


def test_prompt_may_be_tokens_or_lists_of_tokens(served: Served) -> None:
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
    assert all(len(top) in (2, 3) for top in logprobs["top_logprobs"])  # the selected token is among them
    offsets = logprobs["text_offset"]
    assert (offsets[0], offsets) == (len("Hello, world!"), sorted(offsets))


@pytest.mark.parametrize("prompt", ["Hello, world!", [40, 41, 42, 43, 200, 201]])
def test_echo_returns_the_log_probabilities_of_the_prompt(served: Served, prompt: str | list[int]) -> None:
    plain = served.post(COMPLETIONS, {**BODY, "prompt": prompt, "logprobs": 2}).json["choices"][0]
    body = {**BODY, "prompt": prompt, "logprobs": 2, "echo": True}
    whole = served.post(COMPLETIONS, body).json["choices"][0]
    logprobs = whole["logprobs"]
    only = served.post(COMPLETIONS, {**body, "max_tokens": 0}).json
    alone = only["choices"][0]
    assert (alone["text"] + plain["text"], alone["finish_reason"]) == (whole["text"], "length")
    assert only["usage"]["completion_tokens"] == 0
    for name in ("tokens", "text_offset"):
        assert logprobs[name] == alone["logprobs"][name] + plain["logprobs"][name]
    values = alone["logprobs"]["token_logprobs"][1:] + plain["logprobs"]["token_logprobs"]
    assert logprobs["token_logprobs"][1:] == pytest.approx(values, abs=1e-3)
    assert len(logprobs["top_logprobs"]) == len(logprobs["tokens"])
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    for place, (token, top) in enumerate(zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True)):
        if top is not None:
            assert max(top.values()) >= top[token] == logprobs["token_logprobs"][place]
    events = served.post(COMPLETIONS, {**body, "stream": True}).events
    choices = [event["choices"][0] for event in events]
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    told = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    assert [token for part in told for token in part["tokens"]] == logprobs["tokens"]
    assert [offset for part in told for offset in part["text_offset"]] == logprobs["text_offset"]


def test_list_of_token_lists_is_scored_for_evaluation_harnesses(served: Served) -> None:
    body = {"model": BABBLER, "max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1234, "temperature": 0}
    prompts = [[40, 41, 42], [50, 51, 52, 53]]
    both = served.post(COMPLETIONS, {**body, "prompt": prompts}).json["choices"]
    assert [choice["index"] for choice in both] == [0, 1]
    for choice, prompt in zip(both, prompts, strict=True):
        assert len(choice["logprobs"]["token_logprobs"]) == len(prompt) + 1
        alone = served.post(COMPLETIONS, {**body, "prompt": prompt}).json["choices"][0]
        assert alone["logprobs"]["tokens"] == choice["logprobs"]["tokens"]


def test_character_started_by_the_prompt_is_completed(served: Served) -> None:
    """`é` is two tokens of this tokenizer, and neither is valid text alone."""
    tokens = served.post(COMPLETIONS, {**BODY, "prompt": "Aé", "echo": True, "logprobs": 0, "max_tokens": 0})
    names = tokens.json["choices"][0]["logprobs"]["tokens"]
    assert names[0] == "A"
    assert names[1:] in ([r"bytes:\xc3", r"bytes:\xa9"], ["é"])


def test_logit_bias_bans_a_token(served: Served) -> None:
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
def test_unsupported_parameters_are_rejected_with_the_field(
    served: Served, field: str, value: object
) -> None:
    refused = served.post(COMPLETIONS, {**BODY, field: value})
    assert (refused.status, refused.error["param"].split("[")[0]) == (400, field)
    assert served.post(COMPLETIONS, {**BODY, "max_tokens": 0}).error["param"] == "max_tokens"
