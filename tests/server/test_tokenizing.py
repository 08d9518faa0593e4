"""/tokenize, /detokenize and /tokenizer_info, compatible with vLLM."""

from __future__ import annotations

import pytest

from tests.engine.conftest import needs_mlx
from tests.server.served import BABBLER, CHAT, COMPLETIONS, TINY, Served

pytestmark = needs_mlx

TEXT = "Hello, world! naïve 日本語"
MESSAGES = [{"role": "user", "content": "Hello!"}]


def test_text_is_tokenized_and_detokenized(served: Served) -> None:
    told = served.post("/tokenize", {"model": BABBLER, "prompt": TEXT, "return_token_strs": True}).json
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert told["max_model_len"] == 4096
    used = served.post(COMPLETIONS, {"model": BABBLER, "prompt": TEXT, "max_tokens": 1}).json["usage"]
    assert used["prompt_tokens"] == told["count"]
    back = served.post("/detokenize", {"model": BABBLER, "tokens": told["tokens"]}).json
    assert back == {"prompt": TEXT}
    silent = served.post("/tokenize", {"model": BABBLER, "prompt": TEXT, "add_special_tokens": False}).json
    assert (silent["tokens"], silent["token_strs"]) == (told["tokens"], None)


def test_conversation_is_tokenized_like_its_prompt(served: Served) -> None:
    told = served.post("/tokenize", {"model": TINY, "messages": MESSAGES}).json
    used = served.post(CHAT, {"model": TINY, "messages": MESSAGES, "max_tokens": 1}).json["usage"]
    assert told["count"] == used["prompt_tokens"]
    body = {"model": TINY, "messages": MESSAGES, "add_generation_prompt": False}
    bare = served.post("/tokenize", body).json["tokens"]
    assert bare == told["tokens"][: len(bare)]
    assert len(bare) < told["count"]


def test_tokenizer_info_has_special_tokens_and_template(served: Served) -> None:
    told = served.get(f"/tokenizer_info?model={TINY}").json
    assert told["eos_token"] == "<|im_end|>"
    assert "<|im_start|>" in told["chat_template"]
    assert served.get("/tokenizer_info?model=no-such-model").status == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}),
        ("/tokenize", {"messages": []}),
        ("/detokenize", {}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": [10**9]}),
        ("/detokenize", {"tokens": ["a"]}),
    ],
)
def test_invalid_requests_are_rejected(served: Served, path: str, body: dict[str, object]) -> None:
    assert served.post(path, {"model": BABBLER, **body}).status == 400
