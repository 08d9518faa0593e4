"""Builds the prompt of a request: chat template, plain transcript, raw text, or token ids.

Everything except the grammar runs in a tokenizer process, so this module does not import MLX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from mlxk_tui.engine.generation import RESERVED_VARIABLES, GenerationRequest, SamplingParams
from mlxk_tui.engine.inference.prompts.grammar_compiler import compile_grammar
from mlxk_tui.engine.inference.prompts.messages import (
    format_transcript,
    merge_system_message,
    normalize_message,
    replace_surrogates,
)
from mlxk_tui.engine.inference.prompts.request_checks import check_request, validation_error
from mlxk_tui.engine.limits import prompt_too_long, token_budget
from mlxk_tui.engine.protocol import CountTokens, Detokenize, Detokenized, Tokenize, Tokenized
from mlxk_tui.engine.sampling import merge_sampling, validate_sampling
from mlxk_tui.ops.core.errors import ContextOverflow, ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import plural, printable

if TYPE_CHECKING:
    from mlxk_tui.engine.inference.prompts.constraint import GrammarConstraint
    from mlxk_tui.engine.inference.weights.loading import LoadedModel

_TAIL_TOKENS = 16
"""Number of tokens at the end of a prompt that are decoded to detect open reasoning."""
_PIECE_CHARACTERS = 64 * 1024
"""Size of the pieces in which a long text is tokenized to check whether it fits into the context."""
_PIECE_SLACK_TOKENS = 64
"""Maximum number of tokens that the boundary between two pieces may add."""


class PromptModel(Protocol):
    """The properties of a model that prompts need; a loaded model or its tokenizer alone."""

    @property
    def name(self) -> str:
        """The name for error messages."""

    @property
    def tokenizer(self) -> Any:
        """mlx-lm's TokenizerWrapper."""

    @property
    def context_length(self) -> int | None:
        """The context length in tokens; None if unknown."""

    @property
    def vocab_size(self) -> int:
        """The size of the logits."""

    @property
    def trimmable(self) -> bool:
        """Whether its KV caches can always be trimmed to a shorter prompt."""

    @property
    def defaults(self) -> SamplingParams:
        """The default sampling parameters, from generation_config.json."""


@dataclass(frozen=True)
class Prompt:
    """A validated request with its prompt tokens, ready for the MLX thread."""

    tokens: list[int]
    """Token ids."""
    boundary: int
    """Number of tokens that the prompt of the next turn will begin with; 0 if unknown or not needed."""
    reasoning_open: bool
    """Whether the prompt ends inside reasoning."""
    implied_stops: tuple[str, ...]
    """Stop sequences that a plain transcript implies, in addition to those of the request."""
    max_tokens: int
    """Token budget of the answer."""
    sampling: SamplingParams
    """Effective sampling parameters."""
    may_reason: bool = False
    """Whether the model may begin its answer with reasoning."""
    constraint: GrammarConstraint | None = None
    """The request's own constraint, whose state advances with the answer."""


def prepare_prompt(model: LoadedModel, request: GenerationRequest) -> Prompt:
    """Return the prompt of a request with its constraint: `build_prompt`, then `with_constraint`.

    Raises:
        OpError: the errors of both.
    """
    return with_constraint(model, request, build_prompt(model, request))


def with_constraint(model: LoadedModel, request: GenerationRequest, prompt: Prompt) -> Prompt:
    """Compile the request's grammar, if it has one, and return the prompt with the constraint.

    Raises:
        OpError: `validation_error`, `dependency_missing`, `model_not_runnable`.
    """
    if request.grammar is None:
        return prompt
    from mlxk_tui.engine.inference.prompts.constraint import GrammarConstraint

    constraint = GrammarConstraint(
        compile_grammar(model, request.grammar, request.grammar_syntax),
        model,
        prompt_length=len(prompt.tokens),
        reasoning_open=prompt.reasoning_open,
        may_reason=prompt.may_reason,
    )
    return replace(prompt, constraint=constraint)


def build_prompt(model: PromptModel, request: GenerationRequest) -> Prompt:
    """Validate a request and build its prompt, without the constraint.

    Raises:
        OpError: `validation_error`, `context_length_exceeded`, `model_not_runnable` (the chat template
            fails).
    """
    check_request(request)
    validate_sampling(request.sampling, model.vocab_size)
    implied: tuple[str, ...] = ()
    boundary = 0
    if request.tokens is not None:
        tokens = list(request.tokens)
        _check_length(model, len(tokens))
        _check_range(model, tokens)
        text = model.tokenizer.decode(tokens[-_TAIL_TOKENS:]) if model.tokenizer.has_thinking else ""
    elif request.prompt is not None:
        text = replace_surrogates(request.prompt)
        tokens = _encode_raw(model, text, bounded=True)
    else:
        messages = [normalize_message(message) for message in request.messages or ()]
        text, tokens, implied = _encode_conversation(model, request, messages, bounded=True)
        if request.chat_template and model.tokenizer.has_chat_template:
            boundary = _boundary(model, request, messages, tokens)
    _check_tokens(model, tokens)
    max_tokens = token_budget(
        len(tokens),
        model.context_length,
        max_tokens=request.max_tokens,
        budget=request.budget,
        allow_zero=request.echo,
    )
    return Prompt(
        tokens=tokens,
        boundary=boundary,
        reasoning_open=_reasoning_open(model, text),
        implied_stops=implied,
        max_tokens=max_tokens,
        sampling=merge_sampling(request.sampling, model.defaults),
        may_reason=_may_reason(model, request, text),
    )


def count_tokens(model: PromptModel, command: CountTokens) -> int:
    """Return the number of prompt tokens of a conversation, as `build_prompt` builds it.

    Raises:
        OpError: as `build_prompt`, except `context_length_exceeded`.
    """
    request = GenerationRequest(
        messages=command.messages, tools=command.tools, template_kwargs=command.template_kwargs
    )
    check_request(request)
    messages = [normalize_message(message) for message in command.messages]
    _, tokens, _ = _encode_conversation(model, request, messages)
    _check_tokens(model, tokens)
    return len(tokens)


def tokenize(model: PromptModel, command: Tokenize) -> Tokenized:
    """Tokenize a text, or the prompt of a conversation.

    Raises:
        OpError: as `build_prompt`, except `context_length_exceeded`.
    """
    if command.text is not None:
        text = replace_surrogates(command.text)
        found = model.tokenizer.encode(text, add_special_tokens=command.add_special_tokens)
    else:
        request = GenerationRequest(
            messages=command.messages, tools=command.tools, template_kwargs=command.template_kwargs
        )
        check_request(request)
        messages = [normalize_message(message) for message in command.messages]
        if command.add_generation_prompt or not model.tokenizer.has_chat_template:
            found = _encode_conversation(model, request, messages)[1]
        else:
            found = encode(model, render(model, request, messages, generation_prompt=False))
    tokens = tuple(int(token) for token in found)
    names = model.tokenizer.convert_ids_to_tokens(list(tokens)) if command.return_token_strs else ()
    return Tokenized(command.id, tokens, tuple(str(name) for name in names))


def detokenize(model: PromptModel, command: Detokenize) -> Detokenized:
    """Decode token ids.

    Raises:
        OpError: `validation_error`: an id that the model does not have.
    """
    _check_range(model, command.tokens)
    return Detokenized(command.id, str(model.tokenizer.decode(list(command.tokens))))


def tokenize_texts(model: PromptModel, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text to embed, including special tokens that the tokenizer adds.

    Raises:
        OpError: `validation_error`, `context_length_exceeded`.
    """
    all_tokens = []
    for text in map(replace_surrogates, texts):
        _check_text(model, text)
        tokens = [int(token) for token in model.tokenizer.encode(text)]
        if not tokens:
            raise validation_error("A text to embed is empty.")
        _check_range(model, tokens)
        if model.context_length and len(tokens) > model.context_length:
            raise OpError(
                ErrorType.CONTEXT_LENGTH_EXCEEDED,
                f"A text to embed has {plural(len(tokens), 'token')} and the context of {model.name} holds "
                f"{model.context_length:,}.",
                remedy=Remedy.SPLIT_TEXT,
                overflow=ContextOverflow(len(tokens), model.context_length),
            )
        all_tokens.append(tokens)
    return all_tokens


def render(
    model: PromptModel, request: GenerationRequest, messages: list[dict[str, Any]], *, generation_prompt: bool
) -> str:
    """Render a conversation with the model's chat template.

    If the template rejects a system message, as Gemma's did, it is prepended to the first user message.

    Args:
        model: the model.
        request: the request, for its tools and template variables.
        messages: the conversation.
        generation_prompt: append the beginning of the assistant's turn.

    Raises:
        OpError: `validation_error`: the template rejects the messages; `model_not_runnable`: it fails.
    """
    try:
        return _apply_template(model, request, messages, generation_prompt)
    except Exception as error:
        merged = merge_system_message(messages)
        if merged is not None:
            try:
                return _apply_template(model, request, merged, generation_prompt)
            except Exception:  # noqa: BLE001, S110 - the first error is more useful
                pass
        reason = printable((str(error).strip() or type(error).__name__).splitlines()[0])[:300]
        rejected = "raise_exception" in _template(model) and "TemplateError" in type(error).__name__
        raise OpError(
            ErrorType.VALIDATION_ERROR if rejected else ErrorType.MODEL_NOT_RUNNABLE,
            f"The chat template of {model.name} cannot render this conversation: {reason.rstrip('.')}.",
            remedy=Remedy.CHANGE_MESSAGES,
        ) from error


def _encode_conversation(
    model: PromptModel, request: GenerationRequest, messages: list[dict[str, Any]], *, bounded: bool = False
) -> tuple[str, list[int], tuple[str, ...]]:
    """Return the text of a conversation's prompt, its token ids, and the implied stop sequences."""
    if request.chat_template and model.tokenizer.has_chat_template:
        text = render(model, request, messages, generation_prompt=True)
        return text, encode(model, text, bounded=bounded), ()
    text, implied = format_transcript(messages)
    return text, _encode_raw(model, text, bounded=bounded), implied


def encode(model: PromptModel, text: str, *, bounded: bool = False) -> list[int]:
    """Return the token ids of templated text, which already contains its special tokens.

    Args:
        model: the model.
        text: the text.
        bounded: check first whether a long text fits into the context.

    Raises:
        OpError: `context_length_exceeded`: it does not fit.
    """
    if bounded:
        _check_text(model, text)
    return [int(token) for token in model.tokenizer.encode(text, add_special_tokens=False)]


def _check_text(model: PromptModel, text: str) -> None:
    """Check that a text fits into the context, without tokenizing much more than fits.

    A tokenizer takes seconds for a few megabytes. The number of characters is no indication, because a long
    run of spaces may be a single token. So a long text is tokenized piece by piece until it has too many
    tokens.

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
            raise prompt_too_long(seen, model.context_length, at_least=True)
        start = end


def _apply_template(
    model: PromptModel, request: GenerationRequest, messages: list[dict[str, Any]], generation_prompt: bool
) -> str:
    more = {name: value for name, value in request.template_kwargs.items() if name not in RESERVED_VARIABLES}
    tools = {"tools": list(request.tools)} if request.tools else {}
    text = model.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=generation_prompt, **tools, **more
    )
    return replace_surrogates(str(text))


def _boundary(
    model: PromptModel, request: GenerationRequest, messages: list[dict[str, Any]], tokens: list[int]
) -> int:
    """Return the number of tokens that the prompt has in common with the one without a generation prompt.

    The next turn may replace the generation prompt (for example `<think>`). The number is only needed for
    caches that cannot be trimmed, else it is 0.
    """
    if model.trimmable:
        return 0
    try:
        bare = encode(model, _apply_template(model, request, messages, generation_prompt=False))
    except Exception:  # noqa: BLE001 - a template may raise anything; the prompt itself is valid
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


def _reasoning_open(model: PromptModel, text: str) -> bool:
    start = model.tokenizer.think_start
    return bool(start) and text.rstrip().endswith(start)


def _may_reason(model: PromptModel, request: GenerationRequest, text: str) -> bool:
    tokenizer = model.tokenizer
    templated = request.messages is not None and request.chat_template and tokenizer.has_chat_template
    return bool(
        templated
        and tokenizer.has_thinking
        and request.template_kwargs.get("enable_thinking", True) is not False
        and not text.rstrip().endswith(tokenizer.think_end)  # the template has already closed it
    )


def _template(model: PromptModel) -> str:
    return str(model.tokenizer.chat_template or "")


def _check_tokens(model: PromptModel, tokens: Sequence[int]) -> None:
    if not tokens:
        raise validation_error("The prompt is empty.")
    _check_range(model, tokens)


def _check_length(model: PromptModel, count: int) -> None:
    if model.context_length and count > model.context_length:
        raise prompt_too_long(count, model.context_length)


def _check_range(model: PromptModel, tokens: Sequence[int]) -> None:
    """Check that all ids have an embedding, also if the tokenizer has more tokens than the model."""
    if tokens and not 0 <= min(tokens) <= max(tokens) < model.vocab_size:
        wrong = next(token for token in tokens if not 0 <= token < model.vocab_size)
        raise validation_error(
            f"Token {wrong} is out of range: the model's ids go from 0 to {model.vocab_size - 1}."
        )
