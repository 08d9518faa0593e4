"""The training text of the tiny demo model: reads the dialogues and samples conversations from them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
Message = dict[str, Any]
"""A message in OpenAI's format."""


@dataclass(frozen=True)
class Turn:
    """A question in several wordings, and its answers."""

    asks: tuple[str, ...]
    answers: tuple[str, ...]
    """Usually one; several are equally likely."""
    think: str = ""


@dataclass(frozen=True)
class Dialogue:
    """Consecutive turns."""

    turns: tuple[Turn, ...]
    system: str = ""
    """Key of the system prompt for these answers."""


@dataclass(frozen=True)
class ToolDialogue:
    """A question that is answered with a tool call; `{x}` is replaced by one of `values`."""

    tool: str
    asks: tuple[str, ...]
    values: tuple[str, ...]
    arguments: dict[str, str]
    result: str
    answer: str
    think: str = ""

    def messages(self, ask: str, value: str) -> list[Message]:
        """Return the messages: question, call, result and answer."""
        arguments = {name: text.replace("{x}", value) for name, text in self.arguments.items()}
        call = {"type": "function", "function": {"name": self.tool, "arguments": arguments}}
        return [
            {"role": "user", "content": ask.replace("{x}", value)},
            {"role": "assistant", "content": "", "reasoning_content": self.think, "tool_calls": [call]},
            {"role": "tool", "content": self.result.replace("{x}", value)},
            {"role": "assistant", "content": self.answer.replace("{x}", value)},
        ]


@dataclass(frozen=True)
class Conversation:
    """Messages for the chat template, and the answers to learn."""

    messages: list[Message]
    learn: frozenset[int]
    """Indexes into `messages`."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    thinking: bool = True
    """Whether the last answer may contain reasoning; otherwise it follows an empty `<think>` block."""


@dataclass(frozen=True)
class Corpus:
    """The whole training text."""

    dialogues: tuple[Dialogue, ...]
    tool_dialogues: tuple[ToolDialogue, ...]
    tools: dict[str, dict[str, Any]]
    neutral: tuple[str, ...]
    changing: dict[str, tuple[str, ...]]
    unknown: Turn
    fillers: dict[str, tuple[str, ...]]
    pasted: Turn

    def turns(self) -> Iterator[Turn]:
        """Yield every turn of every dialogue, and the two for unknown questions."""
        for dialogue in self.dialogues:
            yield from dialogue.turns
        yield self.unknown
        yield self.pasted

    def texts(self) -> Iterator[str]:
        """Yield all texts, to train the tokenizer."""
        for turn in self.turns():
            yield from turn.asks
            yield from turn.answers
            yield turn.think
        for tool_dialogue in self.tool_dialogues:
            for value in tool_dialogue.values:
                yield from (m["content"] for m in tool_dialogue.messages(tool_dialogue.asks[0], value))
            yield json.dumps(tool_dialogue.arguments)
            yield tool_dialogue.think
        for tool in self.tools.values():
            yield json.dumps(tool)
        yield from self.neutral
        for prompts in (*self.changing.values(), *self.fillers.values()):
            yield from prompts


def load() -> Corpus:
    """Load dialogues.yaml and prompts.yaml."""
    prompts = yaml.safe_load((HERE / "prompts.yaml").read_text(encoding="utf-8"))
    raw = yaml.safe_load((HERE / "dialogues.yaml").read_text(encoding="utf-8"))
    single = {_asks(d)[0]: _turn(d) for d in raw if "turns" not in d and "system" not in d}
    dialogues = []
    for entry in raw:
        turns = entry.get("turns") or [entry]
        made = tuple(
            replace(single[_asks(t)[0]], asks=_asks(t)) if t.get("same") else _turn(t) for t in turns
        )
        dialogues.append(Dialogue(made, entry.get("system", "")))
    unknown = prompts["unknown"]
    return Corpus(
        dialogues=tuple(dialogues),
        tool_dialogues=tuple(_tool_dialogue(d) for d in prompts["tool_dialogues"]),
        tools=prompts["tools"],
        neutral=tuple(prompts["neutral"]),
        changing={key: tuple(texts) for key, texts in prompts["changing"].items()},
        unknown=_turn(unknown),
        fillers={k: tuple(v) for k, v in unknown.items() if k not in ("ask", "answer")},
        pasted=_turn(prompts["pasted"]),
    )


def _asks(entry: dict[str, Any]) -> tuple[str, ...]:
    """Return the wordings: a list, or one line separated by bars."""
    asks = entry["ask"]
    return tuple(asks.split(" | ") if isinstance(asks, str) else asks)


def _turn(entry: dict[str, Any]) -> Turn:
    answers = entry.get("any") or [entry["answer"]]
    return Turn(_asks(entry), tuple(a.strip() for a in answers), entry.get("think", "").strip())


def _tool_dialogue(entry: dict[str, Any]) -> ToolDialogue:
    return ToolDialogue(
        entry["tool"],
        _asks(entry),
        tuple(entry.get("values", [""])),
        entry["arguments"],
        entry["result"],
        entry["answer"].strip(),
        entry.get("think", "").strip(),
    )


class Sampler:
    """Samples conversations: every dialogue equally often, in random order.

    Args:
        corpus: the training text.
        seed: determines the conversations.
        emphasis: factor for dialogues that are hard to learn: long answers, answers with reasoning, and tool
            calls that copy a word of the question.
    """

    def __init__(self, corpus: Corpus, seed: int, emphasis: int = 1) -> None:
        self.corpus = corpus
        self._random = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self._deck: list[Dialogue] = []
        self._emphasis = emphasis
        self._plain = tuple(
            d for d in corpus.dialogues if not d.system for _ in range(emphasis if _is_hard(d) else 1)
        )
        self._words = sorted({w for text in corpus.texts() for w in re.findall(r"\w+", text)})

    def conversation(self, characters: int) -> Conversation:
        """Return a conversation of about this many characters, at least one dialogue."""
        draw = self._random
        kind = draw.random()
        messages: list[Message] = []
        tools: list[dict[str, Any]] = []
        system, key = draw.choice(self.corpus.neutral), ""
        if kind < 0.10:
            key = draw.choice(sorted(self.corpus.changing))
            system = draw.choice(self.corpus.changing[key])
        elif kind < 0.26:
            names = draw.sample(sorted(self.corpus.tools), draw.randint(1, len(self.corpus.tools)))
            tools = [self.corpus.tools[name] for name in names]
        if system:
            messages.append({"role": "system", "content": system})
        learn: set[int] = set()
        while not learn or sum(len(m["content"]) + 30 for m in messages) < characters:
            added, learned = self._next(key, tools)
            for index in learned:
                learn.add(len(messages) + index)
            messages += added
        thinking = draw.random() < 0.6
        last = len(messages) - 1
        return Conversation(messages, frozenset(_learnable(messages, learn, last, thinking)), tools, thinking)

    def _next(self, key: str, tools: Sequence[dict[str, Any]]) -> tuple[list[Message], list[int]]:
        """Return the messages of another dialogue and the indexes of its answers."""
        draw, corpus = self._random, self.corpus
        kind = draw.random()
        if tools and kind < 0.6:
            names = {tool["function"]["name"] for tool in tools}
            # Dialogues with values are more frequent: the model has to learn to copy them.
            dialogue = draw.choice(
                [
                    d
                    for d in corpus.tool_dialogues
                    if d.tool in names
                    for _ in range(min(len(d.values), 4 * self._emphasis))
                ]
            )
            messages = dialogue.messages(draw.choice(dialogue.asks), draw.choice(dialogue.values))
            messages[0]["content"] = self._reword(messages[0]["content"])
            return messages, [1, 3]
        if key and kind < 0.7:
            return self._messages(draw.choice([d for d in corpus.dialogues if d.system == key]))
        if kind > 0.82:
            return self._exchange(self._off_topic(), corpus.unknown)
        if kind > 0.80:
            return self._exchange(self._paste(), corpus.pasted)
        if not self._deck:
            self._deck = list(self._plain)
            draw.shuffle(self._deck)
        plain = self._deck.pop()
        if key and plain.turns[0].asks[0] in {
            d.turns[0].asks[0] for d in corpus.dialogues if d.system == key
        }:
            return self._exchange(self._off_topic(), corpus.unknown)
        return self._messages(plain)

    def _messages(self, dialogue: Dialogue) -> tuple[list[Message], list[int]]:
        messages: list[Message] = []
        learn: list[int] = []
        for turn in dialogue.turns:
            first = turn.asks[0] if self._random.random() < 0.3 else self._random.choice(turn.asks)
            added, learned = self._exchange(self._reword(first), turn)
            learn += [len(messages) + index for index in learned]
            messages += added
        return messages, learn

    def _exchange(self, ask: str, turn: Turn) -> tuple[list[Message], list[int]]:
        answer = self._random.choice(turn.answers)
        return [
            {"role": "user", "content": ask},
            {"role": "assistant", "content": answer, "reasoning_content": turn.think},
        ], [1]

    def _off_topic(self) -> str:
        if self._random.random() < 0.05:
            letters = self._random.choices("abcdefghijklmnopqrstuvwxyz ", k=self._random.randint(3, 20))
            return "".join(letters).strip() or "x"
        text = self._random.choice(self.corpus.unknown.asks)
        filled = re.sub(r"\{(\w+)\}", lambda m: self._random.choice(self.corpus.fillers[m[1]]), text)
        return self._reword(filled[0].upper() + filled[1:])

    def _paste(self) -> str:
        words = [self._random.choice(self._words) for _ in range(self._random.randint(30, 160))]
        lines = [" ".join(words[i : i + 12]) for i in range(0, len(words), 12)]
        return f"{self._random.choice(self.corpus.pasted.asks)}\n\n" + "\n".join(lines)

    def _reword(self, text: str) -> str:
        """Return a variant of the question: case, punctuation, a typo."""
        draw = self._random
        if draw.random() < 0.2:
            text = text.rstrip("?!.")
        if draw.random() < 0.2:
            text = text[0].lower() + text[1:] if draw.random() < 0.5 else text.lower()
        if draw.random() < 0.08:
            text = draw.choice(["Please: ", "Hi! ", "Hello, ", "Tell me: ", "Quick question: "]) + text
        if len(text) > 12 and draw.random() < 0.12:
            at = draw.randrange(3, len(text) - 2)
            pair = text[at : at + 2]
            text = text[:at] + draw.choice(["", pair[0] * 2, pair[::-1]]) + text[at + 2 :]
        return text


def _is_hard(dialogue: Dialogue) -> bool:
    return any(turn.think or len(turn.answers[0]) > 1000 for turn in dialogue.turns)


def _learnable(messages: list[Message], learn: set[int], last: int, thinking: bool) -> Iterator[int]:
    """Yield the answers whose rendered text is what the model has to generate.

    The template drops the reasoning of earlier turns, so an answer with reasoning can only be learned if it
    is the last one.
    """
    last_user = max(i for i, m in enumerate(messages) if m["role"] == "user")
    for index in sorted(learn):
        thinks = bool(messages[index].get("reasoning_content"))
        if index == last or not thinks or (index > last_user and thinking):
            yield index


def render(conversation: Conversation) -> list[tuple[str, bool]]:
    """Return the text as rendered by the chat template, in pieces with a flag: whether to learn the piece."""
    pieces: list[tuple[str, bool]] = []
    messages = conversation.messages
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    if conversation.tools:
        lines = "".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in conversation.tools)
        hint = 'Call one with <tool_call>{"name": ..., "arguments": {...}}</tool_call>'
        system += f"{chr(10) * 2 if system else ''}# Tools\n{lines}{hint}"
    if system:
        pieces.append((f"<|im_start|>system\n{system}<|im_end|>\n", False))
    last = len(messages) - 1
    last_user = max(i for i, m in enumerate(messages) if m["role"] == "user")
    for index, message in enumerate(messages):
        if message["role"] == "system":
            continue
        pieces.append((f"<|im_start|>{message['role']}\n", False))
        if message["role"] != "assistant":
            pieces.append((f"{message['content']}<|im_end|>\n", False))
            continue
        text = message["content"]
        for call in message.get("tool_calls", []):
            text += f"<tool_call>\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>"
        think = message.get("reasoning_content")
        if index == last and not conversation.thinking:
            pieces.append(("<think>\n\n</think>\n\n", False))
        elif think and index > last_user:
            text = f"<think>\n{think}\n</think>\n\n{text}"
        pieces.append((f"{text}<|im_end|>", index in conversation.learn))
        pieces.append(("\n", False))
    return pieces
