"""From a stored chat to a request to the engine: messages, sampling, limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mlxk_tui.chats.model import Message, Role, Session
from mlxk_tui.engine.generation import GenerationRequest, SamplingParams
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.engine.sampling import validate_sampling
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.services.conversation.generation import with_draft_model

MAX_VOCABULARY = 2**31
"""Size of the vocabulary of a model that is not loaded yet: sampling is checked against it."""
_NUMBERS = {item.name for item in fields(SamplingParams)} - {"logit_bias"}


@dataclass(frozen=True)
class ChatSettings:
    """What the settings form of a chat holds."""

    system: str
    values: Mapping[str, Any]


def request_of(
    session: Session, history: Sequence[Message], draft: RunnableModel | None = None
) -> GenerationRequest:
    """Return the request for the next answer of a chat.

    Args:
        session: the chat, with its system prompt and settings.
        history: the shown conversation up to the question to answer.
        draft: the draft model.

    Raises:
        OpError: `validation_error` where the stored settings cannot be used.
    """
    sampling, max_tokens = sampling_of(session.settings)
    request = GenerationRequest(
        messages=tuple(messages_of(session.system, history)),
        sampling=sampling,
        max_tokens=max_tokens,
        kv_bits=kv_bits_of(session.settings),
    )
    return with_draft_model(request, draft)


def messages_of(system: str, history: Sequence[Message]) -> list[dict[str, Any]]:
    """Return a conversation in OpenAI's shape; an empty answer is left out.

    Two questions in a row become one, because most chat templates require turns to alternate.
    """
    found: list[dict[str, Any]] = [{"role": "system", "content": system}] if system.strip() else []
    for message in history:
        content = with_attachments(message)
        if message.role is Role.ASSISTANT and not content.strip() and not message.tool_calls:
            continue
        last = found[-1] if found else None
        if last is not None and last["role"] == message.role.value == Role.USER.value:
            last["content"] += f"\n\n{content}"
            continue
        one: dict[str, Any] = {"role": message.role.value, "content": content}
        if message.tool_calls:
            one["tool_calls"] = [dict(call) for call in message.tool_calls]
        if message.tool_call_id:
            one["tool_call_id"] = message.tool_call_id
        found.append(one)
    return found


def with_attachments(message: Message) -> str:
    """Return the text of a message after its files, each in a code fence longer than any in the file."""
    parts = []
    for item in message.attachments:
        longest = max((len(ticks) for ticks in re.findall("`+", item.text)), default=0)
        fence = "`" * max(3, longest + 1)
        name = " ".join(item.name.split())
        text = item.text.rstrip("\n")
        parts.append(f"{name}:\n{fence}\n{text}\n{fence}")
    return "\n\n".join([*parts, *([message.content] if message.content else [])])


def sampling_of(
    settings: Mapping[str, Any], vocab_size: int = MAX_VOCABULARY
) -> tuple[SamplingParams, int | None]:
    """Return sampling and the token limit from a chat's settings; unknown keys are ignored.

    Raises:
        OpError: `validation_error`, naming the setting.
    """
    sampling = SamplingParams(**{name: settings[name] for name in _NUMBERS if settings.get(name) is not None})
    validate_sampling(sampling, vocab_size)
    limit = settings.get("max_tokens")
    return sampling, limit if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0 else None


def kv_bits_of(settings: Mapping[str, Any]) -> int | None:
    """Return the bits of the KV cache; None for full precision.

    Raises:
        OpError: `validation_error`, with the engine's message.
    """
    bits = settings.get("kv_bits")
    if bits is None:
        return None
    if isinstance(bits, bool) or bits not in (4, 8):
        raise OpError(ErrorType.VALIDATION_ERROR, "kv_bits takes 4 or 8.")
    return int(bits)


def draft_of(settings: Mapping[str, Any]) -> str | None:
    """Return the name of the draft model; None for none."""
    name = settings.get("draft_model")
    return name if isinstance(name, str) and name.strip() else None


def shown_settings(settings: Mapping[str, Any], system: str) -> str:
    """Return which settings of a chat differ from the defaults of its model, in a few words."""
    parts = []
    if isinstance(value := settings.get("temperature"), (int, float)):
        parts.append(f"temperature {value:g}")
    names = (*_NUMBERS, "max_tokens", "kv_bits", "draft_model")
    others = sum(settings.get(name) is not None for name in names if name != "temperature")
    if others:
        parts.append(f"{others} more set" if parts else f"{others} set")
    if system.strip():
        parts.append("system prompt")
    return " · ".join(parts)
