"""The tiny real model: healthy in a cache, correct answers, and created by the training script."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer

from mlxk_tui.demo import tiny_model
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import check_health, list_models
from mlxk_tui.ops.contract.results import Framework, Health, ModelType
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"

needs_mlx = pytest.mark.skipif(
    importlib.util.find_spec("mlx_lm") is None, reason="mlx-lm has no build for this platform"
)


def corpus_module() -> ModuleType:
    """Return the training script's module with the training text."""
    name = "tiny_model_corpus"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / "tiny_model" / "corpus.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


CORPUS: Any = corpus_module().load()
SINGLE = {d.turns[0].asks[0]: d.turns[0] for d in CORPUS.dialogues if len(d.turns) == 1 and not d.system}


class LoadedModel:
    """A process with a loaded model."""

    def __init__(self, folder: Path) -> None:
        script = Path(__file__).with_name("ask_tiny_model.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "MLX_DISABLE_COMPILE": "1", "HF_HUB_OFFLINE": "1"},
        )
        self.found = self._read()

    def __call__(
        self, messages: str | list[dict[str, Any]], *, max_tokens: int = 800, **template: Any
    ) -> dict[str, Any]:
        """Return the answer; `template` is passed to the chat template."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        request = {
            "messages": messages,
            "template": {"add_generation_prompt": True, **template},
            "max_tokens": max_tokens,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that loads the model has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


@pytest.fixture(scope="module")
def ask() -> Iterator[LoadedModel]:
    """The shipped model, loaded once."""
    asked = LoadedModel(tiny_model.folder())
    yield asked
    asked.close()


def history(tokens: int) -> list[dict[str, Any]]:
    """Return questions and answers with at least this many tokens, and at most one more answer."""
    tokenizer = Tokenizer.from_file(str(tiny_model.folder() / "tokenizer.json"))
    messages: list[dict[str, Any]] = []
    for question, turn in SINGLE.items():
        if sum(len(tokenizer.encode(m["content"]).ids) for m in messages) > tokens:
            break
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": turn.answers[0]},
        ]
    return messages


async def test_tiny_model_is_a_healthy_and_runnable_chat_model(hub: Path, cache: Cache) -> None:
    tiny_model.install(hub)
    (model,) = (await list_models(cache)).models
    assert model.name == tiny_model.NAME
    assert (model.framework, model.model_type) == (Framework.MLX, ModelType.CHAT)
    assert model.health is Health.HEALTHY
    assert model.context_length == 4096
    assert (await check_health(cache, verify=True)).healthy[0].findings == []


@needs_mlx
async def test_installed_mlx_lm_can_run_the_model(hub: Path, cache: Cache) -> None:
    tiny_model.install(hub)
    (model,) = (await list_models(cache)).models
    assert (model.runtime_compatible, model.reason) == (True, None)


def test_huggingface_hub_considers_the_model_complete(hub: Path) -> None:
    snapshot = tiny_model.install(hub)
    found = snapshot_download(tiny_model.NAME, cache_dir=hub, local_files_only=True)
    assert Path(found) == snapshot


def test_commit_is_derived_from_the_files(tmp_path: Path) -> None:
    first = tiny_model.install(tmp_path / "a")
    assert tiny_model.install(tmp_path / "b").name == first.name
    assert tiny_model.install(tmp_path / "a") == first


def test_model_is_small() -> None:
    assert sum(path.stat().st_size for path in tiny_model.folder().iterdir()) < 5_000_000


def test_locating_the_model_imports_no_mlx() -> None:
    code = "import sys, mlxk_tui.demo.tiny_model as t; t.folder(); print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"mlx", "mlx_lm", "transformers"} & set(loaded.split())


def test_suggestions_are_trained_questions() -> None:
    assert set(tiny_model.SUGGESTIONS) <= set(SINGLE)


@pytest.mark.slow
@needs_mlx
def test_mlx_lm_detects_reasoning_and_tools(ask: LoadedModel) -> None:
    assert ask.found == {"has_thinking": True, "tool_call_start": "<tool_call>"}


@pytest.mark.slow
@needs_mlx
@pytest.mark.parametrize("question", [*list(SINGLE)[::8], *tiny_model.SUGGESTIONS[:-1]])
def test_trained_questions_are_answered(ask: LoadedModel, question: str) -> None:
    answer = ask(question, enable_thinking=False)
    assert answer["text"] in SINGLE[question].answers
    assert answer["finish_reason"] == "stop"


@needs_mlx
def test_model_reasons_first_unless_disabled(ask: LoadedModel) -> None:
    turn = SINGLE["What is reasoning?"]
    assert ask("What is reasoning?")["text"] == f"<think>\n{turn.think}\n</think>\n\n{turn.answers[0]}"
    assert ask("What is reasoning?", enable_thinking=False)["text"] == turn.answers[0]


@needs_mlx
def test_model_calls_a_tool_and_answers_with_the_result(ask: LoadedModel) -> None:
    dialogue = next(d for d in CORPUS.tool_dialogues if d.tool == "list_models" and not d.think)
    messages = dialogue.messages(dialogue.asks[0], "")
    tools = list(CORPUS.tools.values())
    assert ask(messages[:1], tools=tools)["tool_call"] == {
        "name": "list_models",
        "arguments": dialogue.arguments,
    }
    assert ask(messages[:3], tools=tools)["text"] == dialogue.answer


@needs_mlx
def test_tool_call_contains_the_city_of_the_question(ask: LoadedModel) -> None:
    answer = ask("What is the weather in Paris?", tools=[CORPUS.tools["get_weather"]])
    assert answer["tool_call"] == {"name": "get_weather", "arguments": {"city": "Paris"}}


@needs_mlx
def test_model_uses_the_conversation_history(ask: LoadedModel) -> None:
    dialogue = next(d for d in CORPUS.dialogues if len(d.turns) == 3)
    messages: list[dict[str, Any]] = []
    for turn in dialogue.turns:
        messages.append({"role": "user", "content": turn.asks[0]})
        text = ask(messages, enable_thinking=False)["text"]
        assert text == turn.answers[0]
        messages.append({"role": "assistant", "content": text})


@pytest.mark.slow
@needs_mlx
def test_long_history_does_not_change_the_answer(ask: LoadedModel) -> None:
    question = "What does verify do?"
    answer = ask([*history(1500), {"role": "user", "content": question}])
    assert 1500 < answer["prompt_tokens"] < 2000
    assert answer["text"] in SINGLE[question].answers


@needs_mlx
def test_system_prompt_changes_the_answer(ask: LoadedModel) -> None:
    system = {"role": "system", "content": CORPUS.changing["json"][0]}
    answer = ask([system, {"role": "user", "content": "What do the panes do?"}])
    assert json.loads(answer["text"])["4"] == "Chat"


@needs_mlx
@pytest.mark.parametrize("question", ["What is the capital of France?", "Tell me about quantum physics."])
def test_unknown_questions_get_the_default_answer(ask: LoadedModel, question: str) -> None:
    assert ask(question)["text"] == CORPUS.unknown.answers[0]


@pytest.mark.slow
@needs_mlx
def test_one_answer_is_long(ask: LoadedModel) -> None:
    answer = ask("Give me a tour of the app")
    assert answer["tokens"] > 400
    assert answer["text"] in SINGLE["Give me a tour of the app"].answers


@needs_mlx
def test_training_text_matches_the_chat_template(ask: LoadedModel) -> None:
    corpus = corpus_module()
    sampler = corpus.Sampler(CORPUS, 1)
    for _ in range(40):
        conversation = sampler.conversation(600)
        options = {"enable_thinking": conversation.thinking, "tools": conversation.tools or None}
        prompt = ask(conversation.messages[:-1], max_tokens=0, **options)["prompt"]
        text = "".join(piece for piece, _ in corpus.render(conversation))
        assert text.startswith(prompt)
        assert text[len(prompt) :].endswith(f"{conversation.messages[-1]['content']}<|im_end|>\n") or (
            "tool_calls" in conversation.messages[-1]
        )


def test_every_dialogue_fits_into_the_context_and_survives_tokenization() -> None:
    tokenizer = Tokenizer.from_file(str(tiny_model.folder() / "tokenizer.json"))
    for dialogue in CORPUS.dialogues:
        tokens = 0
        for text in [text for turn in dialogue.turns for text in (*turn.asks, *turn.answers, turn.think)]:
            encoding = tokenizer.encode(text, add_special_tokens=False)
            assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == text
            tokens += len(encoding.ids)
        assert tokens < 2000


@pytest.mark.slow
@needs_mlx
def test_training_script_creates_a_loadable_model(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, SCRIPTS / "train_tiny_model.py", "--out", tmp_path, "--stages", "1", "--steps", "1"],
        check=True,
        capture_output=True,
        env={**os.environ, "MLX_DISABLE_COMPILE": "1"},
    )
    shipped = tiny_model.folder()
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in shipped.iterdir()}
    for path in shipped.iterdir():
        if path.name != "model.safetensors":  # a model trained for one step differs
            assert (tmp_path / path.name).read_bytes() == path.read_bytes(), f"{path.name} is out of date"
    asked = LoadedModel(tmp_path)
    assert asked("Hello!", max_tokens=3)["tokens"] == 3
    asked.close()
