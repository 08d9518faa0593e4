"""The transcript of a conversation, and its slash commands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from mlxk_tui.engine.generation import GenerationRequest, SamplingParams
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.text import plural, printable
from mlxk_tui.services.conversation.generation import GenerationResult, with_draft_model

if TYPE_CHECKING:
    from mlxk_tui_headless.chat.run_options import RunOptions

WriteText = Callable[[str], None]
"""Writes text to the terminal."""

HELP = """\
/system [TEXT]     show or set the system prompt; '/system -' removes it
/set [NAME VALUE]  show or set temperature, top_p, top_k, min_p, repetition_penalty, seed, max_tokens
/reasoning on|off  show or hide the model's reasoning
/stats on|off      show or hide token counts and timings after each answer
/clear             clear the conversation
/save FILE         save the conversation as Markdown, or as JSON if FILE ends in .json
/exit              quit; also exit, quit and Ctrl-D
End a line with \\ to continue it on the next; put several lines between \"\"\" and \"\"\".
Start with // to send a text that begins with a slash.
"""
_INTEGERS = ("top_k", "seed", "max_tokens")
_SETTABLE = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens")


@dataclass
class Transcript:
    """The messages of a conversation, and the options of the next answer."""

    options: RunOptions
    messages: list[dict[str, str]] = field(default_factory=list)
    """Messages of user and assistant, in OpenAI's format."""

    def __post_init__(self) -> None:
        self.system = self.options.system
        self.sampling: SamplingParams = self.options.sampling
        self.max_tokens = self.options.max_tokens
        self.show_reasoning = self.options.show_reasoning
        self.verbose = self.options.verbose

    def request(self, text: str, draft: RunnableModel | None) -> GenerationRequest:
        """Return the generation request for the next answer."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        request = GenerationRequest(
            messages=(*system, *self.messages, {"role": "user", "content": text}),
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            stop=self.options.stop,
            chat_template=self.options.chat_template,
            kv_bits=self.options.kv_bits,
        )
        return with_draft_model(request, draft)

    def add(self, text: str, result: GenerationResult) -> None:
        """Add a prompt and its answer; if the answer is empty, add neither."""
        if result.text or result.reasoning:
            self.messages.append({"role": "user", "content": text})
            message = {"role": "assistant", "content": result.text}
            if result.reasoning:
                message["reasoning_content"] = result.reasoning
            self.messages.append(message)


class SlashCommands:
    """Runs the slash commands."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._saved_path = ""

    def run(self, text: str, write: WriteText) -> bool:
        """Run a command; return False if the text is not a command.

        Raises:
            EOFError: the command ends the conversation.
        """
        if not text.startswith("/") or text.startswith("//"):
            return False
        word, _, rest = text[1:].strip().partition(" ")
        actions: dict[str, Callable[[str], str]] = {
            "help": lambda _: HELP,
            "?": lambda _: HELP,
            "system": self._system,
            "set": self._set,
            "reasoning": lambda value: self._switch("show_reasoning", "Reasoning", value),
            "stats": lambda value: self._switch("verbose", "Statistics", value),
            "clear": self._clear,
            "save": self._save,
        }
        if word in {"exit", "quit", "bye"}:
            raise EOFError
        action = actions.get(word)
        text = action(rest.strip()) if action else f"Unknown command: /{word}. /help lists all commands."
        write(printable(text, keep_newlines=True).rstrip("\n") + "\n")
        return True

    def _system(self, value: str) -> str:
        if value:
            self._transcript.system = None if value == "-" else value
        return f"System prompt: {self._transcript.system}" if self._transcript.system else "No system prompt."

    def _switch(self, name: str, title: str, value: str) -> str:
        if value not in {"on", "off"}:
            return f"Use on or off. {title}: {'on' if getattr(self._transcript, name) else 'off'}."
        setattr(self._transcript, name, value == "on")
        return f"{title}: {value}."

    def _clear(self, value: str) -> str:
        del value
        count = len(self._transcript.messages)
        self._transcript.messages.clear()
        return f"Cleared {plural(count, 'message')}."

    def _set(self, value: str) -> str:
        transcript = self._transcript
        if not value:
            values = {item.name: getattr(transcript.sampling, item.name) for item in fields(SamplingParams)}
            values["max_tokens"] = transcript.max_tokens
            lines = [f"{name} {'default' if values[name] is None else values[name]}" for name in _SETTABLE]
            return "\n".join(lines)
        name, _, text = value.partition(" ")
        if name not in _SETTABLE:
            return f"Unknown setting: {name}. Settings: {', '.join(_SETTABLE)}."
        number: float | int | None = None
        if text.strip() != "default":
            try:
                number = int(text) if name in _INTEGERS else float(text)
            except ValueError:
                kind = "a whole number" if name in _INTEGERS else "a number"
                return f"{name} must be {kind} or 'default'."
        if name == "max_tokens":
            transcript.max_tokens = None if number is None else int(number)
        else:
            changes: dict[str, Any] = {name: number}
            transcript.sampling = replace(transcript.sampling, **changes)
        return f"{name} {'default' if number is None else number}"

    def _save(self, value: str) -> str:
        if not value:
            return "Give a file name: /save chat.md"
        if not self._transcript.messages:
            return "Nothing to save yet."
        path = os.path.expanduser(value)
        text = self._json() if path.endswith(".json") else self._markdown()
        try:
            with open(
                path, "w" if path == self._saved_path else "x", encoding="utf-8", errors="replace"
            ) as file:
                file.write(text)
        except FileExistsError:
            return f"{value} already exists. Give another name."
        except (OSError, ValueError) as error:
            return f"{value} was not written: {getattr(error, 'strerror', None) or 'not a valid file name'}."
        self._saved_path = path
        return f"Saved to {value}."

    def _json(self) -> str:
        system = [{"role": "system", "content": self._transcript.system}] if self._transcript.system else []
        chat = {"model": self._transcript.options.model, "messages": [*system, *self._transcript.messages]}
        return json.dumps(chat, indent=2, ensure_ascii=False) + "\n"

    def _markdown(self) -> str:
        parts = [f"# {self._transcript.options.model}"]
        if self._transcript.system:
            parts.append(f"> {self._transcript.system}")
        for message in self._transcript.messages:
            parts += [f"## {message['role'].capitalize()}", message["content"]]
        return "\n\n".join(parts) + "\n"
