"""Turns a request into prompt tokens: chat template, plain fallback, raw text or tokens.

All but the grammar happens in a process of `tokenizing`, which has no MLX: nothing here imports it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from mlxk_tui.engine.generation import RESERVED_VARIABLES, Generation, Sampling
from mlxk_tui.engine.inference.compiling import compile_schema
from mlxk_tui.engine.limits import token_budget, too_long
from mlxk_tui.engine.protocol import CountTokens, Detokenize, Detokenized, Tokenize, Tokenized
from mlxk_tui.engine.sampling import merged, validate
from mlxk_tui.ops.errors import ContextOverflow, ErrorType, OpError
from mlxk_tui.ops.format import plural, printable

if TYPE_CHECKING:
    from mlxk_tui.engine.inference.grammar import Constraint
    from mlxk_tui.engine.inference.loading import LoadedModel

_ROLES = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
_MAX_STOPS = 64
_MAX_STOP_CHARACTERS = 4096
_TAIL_TOKENS = 16
_PIECE_CHARACTERS = 64 * 1024
"""How much of a long text is tokenized at a time to see whether it fits at all."""
_PIECE_SLACK_TOKENS = 64
"""How many tokens a cut between two pieces may add at most."""


class PromptModel(Protocol):
    """What prompts need of a model: one in memory, or its tokenizer alone."""

    @property
    def name(self) -> str:
        """As shown."""

    @property
    def tokenizer(self) -> Any:
        """mlx-lm's TokenizerWrapper."""

    @property
    def context_length(self) -> int | None:
        """Tokens."""

    @property
    def vocab_size(self) -> int:
        """Size of the logits."""

    @property
    def trimmable(self) -> bool:
        """Whether its caches can always be cut back to a shorter prompt."""

    @property
    def defaults(self) -> Sampling:
        """What generation_config.json recommends."""


@dataclass(frozen=True)
class Prompt:
    """A valid request, ready for the MLX thread."""

    tokens: list[int]
    boundary: int
    """How many tokens the next turn of the conversation will surely begin with; 0 while unknown."""
    reasoning_open: bool
    """The prompt ends inside reasoning."""
    implied_stops: tuple[str, ...]
    """Stops that belong to the plain form of a conversation, not to the request."""
    max_tokens: int
    sampling: Sampling
    may_reason: bool = False
    """The model may begin with reasoning of its own accord."""
    constraint: Constraint | None = None
    """Of this request alone: it moves on with the answer."""


def prepare(model: LoadedModel, request: Generation) -> Prompt:
    """Return the prompt of a request with its grammar: `read_prompt`, then `constrained`.

    Raises:
        OpError: those of both.
    """
    return constrained(model, request, read_prompt(model, request))


def constrained(model: LoadedModel, request: Generation, prompt: Prompt) -> Prompt:
    """Return a prompt with the grammar that its request asks for, compiled.

    Raises:
        OpError: `validation_error`, `dependency_missing`, `model_not_runnable`.
    """
    if request.grammar is None:
        return prompt
    from mlxk_tui.engine.inference.grammar import Constraint

    constraint = Constraint(
        compile_schema(model, request.grammar, request.grammar_syntax),
        model,
        prompt_length=len(prompt.tokens),
        reasoning_open=prompt.reasoning_open,
        may_reason=prompt.may_reason,
    )
    return replace(prompt, constraint=constraint)


def read_prompt(model: PromptModel, request: Generation) -> Prompt:
    """Check a request against a model and build its prompt, but for its grammar.

    Raises:
        OpError: `validation_error`, `context_length_exceeded`, `model_not_runnable` (its chat template
            fails).
    """
    _check(request)
    validate(request.sampling, model.vocab_size)
    implied: tuple[str, ...] = ()
    boundary = 0
    if request.tokens is not None:
        tokens = list(request.tokens)
        _check_length(model, len(tokens))
        _check_range(model, tokens)
        text = model.tokenizer.decode(tokens[-_TAIL_TOKENS:]) if model.tokenizer.has_thinking else ""
    elif request.prompt is not None:
        text = without_surrogates(request.prompt)
        tokens = _encode_raw(model, text, bounded=True)
    else:
        messages = [_plain_message(message) for message in request.messages or ()]
        text, tokens, implied = _conversation(model, request, messages, bounded=True)
        if request.chat_template and model.tokenizer.has_chat_template:
            boundary = _boundary(model, request, messages, tokens)
    _check_tokens(model, tokens)
    max_tokens = token_budget(
        len(tokens),
        model.context_length,
        max_tokens=request.max_tokens,
        budget=request.budget,
        none_wanted=request.echo,
    )
    return Prompt(
        tokens=tokens,
        boundary=boundary,
        reasoning_open=_reasoning_open(model, text),
        implied_stops=implied,
        max_tokens=max_tokens,
        sampling=merged(request.sampling, model.defaults),
        may_reason=_may_reason(model, request, text),
    )


def count(model: PromptModel, asked: CountTokens) -> int:
    """Return how many tokens a conversation has as a prompt: as many as `prepare` makes of it.

    Raises:
        OpError: as `prepare`, but never for its length.
    """
    request = Generation(messages=asked.messages, tools=asked.tools, template_kwargs=asked.template_kwargs)
    _check(request)
    messages = [_plain_message(message) for message in asked.messages]
    _, tokens, _ = _conversation(model, request, messages)
    _check_tokens(model, tokens)
    return len(tokens)


def tokenize(model: PromptModel, asked: Tokenize) -> Tokenized:
    """Return the tokens of a text as the tokenizer has them, or of a conversation as its prompt.

    Raises:
        OpError: as `prepare`, but never for its length.
    """
    if asked.text is not None:
        text = without_surrogates(asked.text)
        found = model.tokenizer.encode(text, add_special_tokens=asked.add_special)
    else:
        request = Generation(
            messages=asked.messages, tools=asked.tools, template_kwargs=asked.template_kwargs
        )
        _check(request)
        messages = [_plain_message(message) for message in asked.messages]
        if asked.opens_answer or not model.tokenizer.has_chat_template:
            found = _conversation(model, request, messages)[1]
        else:
            found = encode(model, render(model, request, messages, generation_prompt=False))
    tokens = tuple(int(token) for token in found)
    names = model.tokenizer.convert_ids_to_tokens(list(tokens)) if asked.names else ()
    return Tokenized(asked.id, tokens, tuple(str(name) for name in names))


def detokenize(model: PromptModel, asked: Detokenize) -> Detokenized:
    """Return the text of tokens.

    Raises:
        OpError: `validation_error`: an id that the model does not have.
    """
    _check_range(model, asked.tokens)
    return Detokenized(asked.id, str(model.tokenizer.decode(list(asked.tokens))))


def read_texts(model: PromptModel, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of texts that are to be embedded, with the special ones that the tokenizer adds.

    Raises:
        OpError: `validation_error`, `context_length_exceeded`.
    """
    read = []
    for text in map(without_surrogates, texts):
        _check_text(model, text)
        tokens = [int(token) for token in model.tokenizer.encode(text)]
        if not tokens:
            raise _invalid("A text to embed is empty. Give it some text.")
        _check_range(model, tokens)
        if model.context_length and len(tokens) > model.context_length:
            raise OpError(
                ErrorType.CONTEXT_LENGTH_EXCEEDED,
                f"A text to embed has {plural(len(tokens), 'token')} and {model.name} takes "
                f"{model.context_length:,}. Split it into smaller ones.",
                overflow=ContextOverflow(len(tokens), model.context_length),
            )
        read.append(tokens)
    return read


def render(
    model: PromptModel, request: Generation, messages: list[dict[str, Any]], *, generation_prompt: bool
) -> str:
    """Return a conversation as the model's chat template writes it.

    A template that refuses a system message (Gemma's did) gets it at the head of the first user
    message.

    Raises:
        OpError: `model_not_runnable`: the template fails; `validation_error` where the messages are why.
    """
    try:
        return _apply(model, request, messages, generation_prompt)
    except Exception as error:
        folded = _fold_system(messages)
        if folded is not None:
            try:
                return _apply(model, request, folded, generation_prompt)
            except Exception:  # noqa: BLE001, S110 - the first failure tells more
                pass
        said = printable((str(error).strip() or type(error).__name__).splitlines()[0])[:300]
        refused = "raise_exception" in _template_of(model) and "TemplateError" in type(error).__name__
        raise OpError(
            ErrorType.VALIDATION_ERROR if refused else ErrorType.MODEL_NOT_RUNNABLE,
            f"The chat template of {model.name} cannot write this conversation: {said.rstrip('.')}. "
            "Change the messages, or go without the template.",
        ) from error


def _conversation(
    model: PromptModel, request: Generation, messages: list[dict[str, Any]], *, bounded: bool = False
) -> tuple[str, list[int], tuple[str, ...]]:
    """Return a conversation as a text, its tokens, and the stops that its form implies."""
    if request.chat_template and model.tokenizer.has_chat_template:
        text = render(model, request, messages, generation_prompt=True)
        return text, encode(model, text, bounded=bounded), ()
    text, implied = _transcript(messages)
    return text, _encode_raw(model, text, bounded=bounded), implied


def encode(model: PromptModel, text: str, *, bounded: bool = False) -> list[int]:
    """Return the tokens of templated text, which brings its own special tokens.

    Raises:
        OpError: `context_length_exceeded`: it is `bounded`, long, and by far too long for the model.
    """
    if bounded:
        _check_text(model, text)
    return [int(token) for token in model.tokenizer.encode(text, add_special_tokens=False)]


def _check_text(model: PromptModel, text: str) -> None:
    """Refuse a text that the context cannot hold before all of it is tokenized.

    A tokenizer takes seconds for some megabytes. How many characters a token has is no measure: a run of
    blanks may be one. So a long text is tokenized piece by piece until there are too many.

    Raises:
        OpError: `context_length_exceeded`.
    """
    if not model.context_length or len(text) <= 2 * _PIECE_CHARACTERS:
        return
    seen, start = 0, 0
    while start < len(text):
        end = min(start + _PIECE_CHARACTERS, len(text))
        cut = text.rfind(" ", end - 256, end) if end < len(text) else end
        end = cut if cut > start else end
        seen += len(model.tokenizer.encode(text[start:end], add_special_tokens=False)) - _PIECE_SLACK_TOKENS
        if seen > model.context_length:
            raise too_long(seen, model.context_length, at_least=True)
        start = end


def _apply(
    model: PromptModel, request: Generation, messages: list[dict[str, Any]], generation_prompt: bool
) -> str:
    more = {name: value for name, value in request.template_kwargs.items() if name not in RESERVED_VARIABLES}
    tools = {"tools": list(request.tools)} if request.tools else {}
    text = model.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=generation_prompt, **tools, **more
    )
    return without_surrogates(str(text))


def _boundary(
    model: PromptModel, request: Generation, messages: list[dict[str, Any]], tokens: list[int]
) -> int:
    """Return how far the prompt agrees with the same conversation without the opening of an answer.

    The opening is what a next turn may write differently (`<think>`); only caches that cannot be cut
    back need to know.
    """
    if model.trimmable:
        return 0
    try:
        bare = encode(model, _apply(model, request, messages, generation_prompt=False))
    except Exception:  # noqa: BLE001 - as above; the prompt itself was fine
        return 0
    same = 0
    for left, right in zip(tokens, bare, strict=False):
        if left != right:
            break
        same += 1
    return min(same, len(tokens) - 1)


def _encode_raw(model: PromptModel, text: str, *, bounded: bool = False) -> list[int]:
    if bounded:
        _check_text(model, text)
    bos = getattr(model.tokenizer, "bos_token", None)
    special = bos is None or not text.startswith(bos)  # as mlx_lm.stream_generate does
    return [int(token) for token in model.tokenizer.encode(text, add_special_tokens=special)]


def _transcript(messages: list[dict[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """Write a conversation plainly; a lone user message is just its text, to be gone on with."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"], ()
    lines = [f"{_ROLES.get(m['role'], m['role'])}: {m['content']}" for m in messages]
    return "\n\n".join((*lines, "Assistant:")), ("\nUser:", "\nSystem:")


def _plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as templates want it: text content, tool arguments as objects."""
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise _invalid("A message has no role. Give 'system', 'user', 'assistant' or 'tool'.")
    plain = {name: _clean_all(value) for name, value in message.items() if value is not None}
    plain["content"] = _text_of(message.get("content"))
    calls = plain.get("tool_calls")
    if isinstance(calls, list):
        plain["tool_calls"] = [_with_object(call) for call in calls]
    return plain


def _text_of(content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return without_surrogates(content)
    if isinstance(content, (list, tuple)):
        parts = []
        for part in content:
            text = part.get("text") if isinstance(part, Mapping) else part
            if not isinstance(text, str):
                raise _invalid("A message holds something other than text, which this model cannot read.")
            parts.append(without_surrogates(text))
        return "".join(parts)
    raise _invalid("The content of a message must be text.")


def _with_object(call: object) -> object:
    """Return a tool call with its arguments as an object, which most templates want."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments) if arguments else {}
        except (ValueError, RecursionError):
            return call
        return {**call, "function": {**function, "arguments": parsed}}
    return call


def _fold_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    merged_content = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{**messages[1], "content": merged_content}, *messages[2:]]


def _reasoning_open(model: PromptModel, text: str) -> bool:
    start = model.tokenizer.think_start
    return bool(start) and text.rstrip().endswith(start)


def _may_reason(model: PromptModel, request: Generation, text: str) -> bool:
    tokenizer = model.tokenizer
    templated = request.messages is not None and request.chat_template and tokenizer.has_chat_template
    return bool(
        templated
        and tokenizer.has_thinking
        and request.template_kwargs.get("enable_thinking", True) is not False
        and not text.rstrip().endswith(tokenizer.think_end)  # the template has closed it already
    )


def _template_of(model: PromptModel) -> str:
    return str(model.tokenizer.chat_template or "")


def _check(request: Generation) -> None:
    given = [value for value in (request.messages, request.prompt, request.tokens) if value is not None]
    if len(given) != 1:
        raise _invalid("Give exactly one of messages, prompt and tokens.")
    if request.messages is not None and not request.messages:
        raise _invalid("There is no message to answer.")
    if request.tokens is not None and not all(_is_whole(token) for token in request.tokens):
        raise _invalid("Tokens are whole numbers.")
    if request.logprobs is not None and not (_is_whole(request.logprobs) and 0 <= request.logprobs <= 20):
        raise _invalid("logprobs takes a whole number from 0 to 20.")
    if request.max_tokens is not None and not _is_whole(request.max_tokens):
        raise _invalid("max_tokens takes a whole number.")
    if request.echo and (request.messages is not None or request.grammar is not None):
        raise _invalid("echo repeats a prompt of text or tokens, without a JSON schema. Leave it out.")
    if request.echo and request.logprobs is not None and request.draft_model is not None:
        raise _invalid(
            "A prompt's log-probabilities are not computed with a draft model. Leave one of them out."
        )
    if len(request.stop) > _MAX_STOPS:
        raise _invalid(f"At most {_MAX_STOPS} stop strings are possible.")
    stops: Sequence[object] = request.stop
    if not all(isinstance(stop, str) and len(stop) <= _MAX_STOP_CHARACTERS for stop in stops):
        raise _invalid(f"A stop string is a text of at most {_MAX_STOP_CHARACTERS:,} characters.")
    if request.grammar is not None and request.draft_model is not None:
        raise _invalid("A JSON schema cannot be followed with a draft model. Leave one of them out.")
    if request.kv_bits is not None and request.kv_bits not in (4, 8):
        raise _invalid("kv_bits takes 4 or 8.")


def _check_tokens(model: PromptModel, tokens: Sequence[int]) -> None:
    if not tokens:
        raise _invalid("The prompt is empty. Give it some text.")
    _check_range(model, tokens)


def _check_length(model: PromptModel, count: int) -> None:
    if model.context_length and count > model.context_length:
        raise too_long(count, model.context_length)


def _check_range(model: PromptModel, tokens: Sequence[int]) -> None:
    """Refuse ids without an embedding, also those of a tokenizer that is larger than its model."""
    if tokens and not 0 <= min(tokens) <= max(tokens) < model.vocab_size:
        wrong = next(token for token in tokens if not 0 <= token < model.vocab_size)
        raise _invalid(f"Token {wrong} is out of range: the model's ids go from 0 to {model.vocab_size - 1}.")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def without_surrogates(text: str) -> str:
    """Replace lone surrogates (bytes that were no UTF-8), which tokenizers refuse."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _clean_all(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, Mapping):
        return {without_surrogates(str(name)): _clean_all(item) for name, item in value.items()}
    return [_clean_all(item) for item in value] if isinstance(value, (list, tuple)) else value


def _invalid(message: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message)
