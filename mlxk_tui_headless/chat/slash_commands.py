"""What is said in a conversation, and the commands that begin with a slash."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from mlxk_tui.engine.generation import Generation, Sampling
from mlxk_tui.engine.models import Runnable
from mlxk_tui.ops.core.text import plural, printable

if TYPE_CHECKING:
    from mlxk_tui_headless.chat.answer import TerminalAnswer
    from mlxk_tui_headless.chat.run_options import RunOptions

Put = Callable[[str], None]
"""Writes to the terminal."""

HELP = """\
/system [TEXT]     show or set the system prompt; '/system -' takes it away
/set [NAME VALUE]  show or set temperature, top_p, top_k, min_p, repetition_penalty, seed, max_tokens
/reasoning on|off  show what the model thinks, or not
/stats on|off      show tokens and timings after each answer
/clear             forget what was said
/save FILE         write the conversation as Markdown, or as JSON where FILE ends in .json
/exit              leave; so do exit, quit and Ctrl-D
A line that ends with \\ goes on in the next; \"\"\" begins and ends a text of several lines.
Two slashes begin a text that starts with one.
"""
_WHOLE = ("top_k", "seed", "max_tokens")
_SETTABLE = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens")


@dataclass
class Transcript:
    """The conversation so far, and how the next answer is to be made."""

    wanted: RunOptions
    said: list[dict[str, str]] = field(default_factory=list)
    """Messages of user and assistant in OpenAI's shape."""

    def __post_init__(self) -> None:
        self.system = self.wanted.system
        self.sampling: Sampling = self.wanted.sampling
        self.max_tokens = self.wanted.max_tokens
        self.show_reasoning = self.wanted.show_reasoning
        self.verbose = self.wanted.verbose

    def request(self, text: str, draft: Runnable | None) -> Generation:
        """Return the request for the next answer."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return Generation(
            messages=(*system, *self.said, {"role": "user", "content": text}),
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            stop=self.wanted.stop,
            chat_template=self.wanted.chat_template,
            kv_bits=self.wanted.kv_bits,
            draft_model=str(draft.folder) if draft is not None else None,
            draft_name=draft.name if draft is not None else None,
        )

    def add(self, text: str, answer: TerminalAnswer) -> None:
        """Remember what was said; an answer of which nothing came is forgotten with its question."""
        if answer.response or answer.reasoning:
            self.said.append({"role": "user", "content": text})
            said = {"role": "assistant", "content": answer.response}
            if answer.reasoning:
                said["reasoning_content"] = answer.reasoning
            self.said.append(said)


class SlashCommands:
    """Carries out what begins with a slash."""

    def __init__(self, talk: Transcript) -> None:
        self._talk = talk
        self._saved_to = ""

    def take(self, text: str, put: Put) -> bool:
        """Carry out a command and tell whether it was one; `EOFError` ends the conversation.

        Raises:
            EOFError: the user wants to leave.
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
        told = action(rest.strip()) if action else f"There is no command /{word}. /help lists them."
        put(printable(told, keep_newlines=True).rstrip("\n") + "\n")
        return True

    def _system(self, value: str) -> str:
        if value:
            self._talk.system = None if value == "-" else value
        return f"System prompt: {self._talk.system}" if self._talk.system else "There is no system prompt."

    def _switch(self, name: str, title: str, value: str) -> str:
        if value not in {"on", "off"}:
            return f"Say on or off. {title}: {'on' if getattr(self._talk, name) else 'off'}."
        setattr(self._talk, name, value == "on")
        return f"{title}: {value}."

    def _clear(self, value: str) -> str:
        del value
        count = len(self._talk.said)
        self._talk.said.clear()
        return f"Forgotten: {plural(count, 'message')}."

    def _set(self, value: str) -> str:
        talk = self._talk
        if not value:
            known = {item.name: getattr(talk.sampling, item.name) for item in fields(Sampling)}
            known["max_tokens"] = talk.max_tokens
            shown = [f"{name} {'default' if known[name] is None else known[name]}" for name in _SETTABLE]
            return "\n".join(shown)
        name, _, text = value.partition(" ")
        if name not in _SETTABLE:
            return f"There is no setting {name}. There are {', '.join(_SETTABLE)}."
        number: float | int | None = None
        if text.strip() != "default":
            try:
                number = int(text) if name in _WHOLE else float(text)
            except ValueError:
                kind = "a whole number" if name in _WHOLE else "a number"
                return f"{name} takes {kind}, or 'default'."
        if name == "max_tokens":
            talk.max_tokens = None if number is None else int(number)
        else:
            changes: dict[str, Any] = {name: number}
            talk.sampling = replace(talk.sampling, **changes)
        return f"{name} {'default' if number is None else number}"

    def _save(self, value: str) -> str:
        if not value:
            return "Give the file to write: /save talk.md"
        if not self._talk.said:
            return "Nothing was said yet."
        path = os.path.expanduser(value)
        text = self._json() if path.endswith(".json") else self._markdown()
        try:
            with open(
                path, "w" if path == self._saved_to else "x", encoding="utf-8", errors="replace"
            ) as file:
                file.write(text)
        except FileExistsError:
            return f"{value} exists already. Give another name."
        except (OSError, ValueError) as error:
            return f"{value} was not written: {getattr(error, 'strerror', None) or 'it is no file name'}."
        self._saved_to = path
        return f"Saved to {value}."

    def _json(self) -> str:
        system = [{"role": "system", "content": self._talk.system}] if self._talk.system else []
        talk = {"model": self._talk.wanted.model, "messages": [*system, *self._talk.said]}
        return json.dumps(talk, indent=2, ensure_ascii=False) + "\n"

    def _markdown(self) -> str:
        parts = [f"# {self._talk.wanted.model}"]
        if self._talk.system:
            parts.append(f"> {self._talk.system}")
        for message in self._talk.said:
            parts += [f"## {message['role'].capitalize()}", message["content"]]
        return "\n\n".join(parts) + "\n"
