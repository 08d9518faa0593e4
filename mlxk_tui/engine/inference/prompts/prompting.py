"""Turns a request into prompt tokens: chat template, plain fallback, raw text or tokens.

All but the grammar happens in a process of `tokenizing`, which has no MLX: nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from mlxk_tui.engine.generation import RESERVED_VARIABLES, Generation, Sampling
from mlxk_tui.engine.inference.prompts.compiling import compile_schema
from mlxk_tui.engine.inference.prompts.messages import (
    fold_system,
    plain_message,
    transcript,
    without_surrogates,
)
from mlxk_tui.engine.inference.prompts.request_checks import check, invalid
from mlxk_tui.engine.limits import token_budget, too_long
from mlxk_tui.engine.protocol import CountTokens, Detokenize, Detokenized, Tokenize, Tokenized
from mlxk_tui.engine.sampling import merge_sampling, validate_sampling
from mlxk_tui.ops.core.errors import ContextOverflow, ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import plural, printable

if TYPE_CHECKING:
    from mlxk_tui.engine.inference.prompts.grammar import Constraint
    from mlxk_tui.engine.inference.weights.loading import LoadedModel

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
    from mlxk_tui.engine.inference.prompts.grammar import Constraint

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
    check(request)
    validate_sampling(request.sampling, model.vocab_size)
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
        messages = [plain_message(message) for message in request.messages or ()]
        text, tokens, implied = _conversation(model, request, messages, bounded=True)
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


def count(model: PromptModel, asked: CountTokens) -> int:
    """Return how many tokens a conversation has as a prompt: as many as `prepare` makes of it.

    Raises:
        OpError: as `prepare`, but never for its length.
    """
    request = Generation(messages=asked.messages, tools=asked.tools, template_kwargs=asked.template_kwargs)
    check(request)
    messages = [plain_message(message) for message in asked.messages]
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
        check(request)
        messages = [plain_message(message) for message in asked.messages]
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
            raise invalid("A text to embed is empty. Give it some text.")
        _check_range(model, tokens)
        if model.context_length and len(tokens) > model.context_length:
            raise OpError(
                ErrorType.CONTEXT_LENGTH_EXCEEDED,
                f"A text to embed has {plural(len(tokens), 'token')} and {model.name} takes "
                f"{model.context_length:,}.",
                remedy=Remedy.SPLIT_TEXT,
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
        folded = fold_system(messages)
        if folded is not None:
            try:
                return _apply(model, request, folded, generation_prompt)
            except Exception:  # noqa: BLE001, S110 - the first failure tells more
                pass
        said = printable((str(error).strip() or type(error).__name__).splitlines()[0])[:300]
        refused = "raise_exception" in _template_of(model) and "TemplateError" in type(error).__name__
        raise OpError(
            ErrorType.VALIDATION_ERROR if refused else ErrorType.MODEL_NOT_RUNNABLE,
            f"The chat template of {model.name} cannot write this conversation: {said.rstrip('.')}.",
            remedy=Remedy.CHANGE_MESSAGES,
        ) from error


def _conversation(
    model: PromptModel, request: Generation, messages: list[dict[str, Any]], *, bounded: bool = False
) -> tuple[str, list[int], tuple[str, ...]]:
    """Return a conversation as a text, its tokens, and the stops that its form implies."""
    if request.chat_template and model.tokenizer.has_chat_template:
        text = render(model, request, messages, generation_prompt=True)
        return text, encode(model, text, bounded=bounded), ()
    text, implied = transcript(messages)
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


def _check_tokens(model: PromptModel, tokens: Sequence[int]) -> None:
    if not tokens:
        raise invalid("The prompt is empty. Give it some text.")
    _check_range(model, tokens)


def _check_length(model: PromptModel, count: int) -> None:
    if model.context_length and count > model.context_length:
        raise too_long(count, model.context_length)


def _check_range(model: PromptModel, tokens: Sequence[int]) -> None:
    """Refuse ids without an embedding, also those of a tokenizer that is larger than its model."""
    if tokens and not 0 <= min(tokens) <= max(tokens) < model.vocab_size:
        wrong = next(token for token in tokens if not 0 <= token < model.vocab_size)
        raise invalid(f"Token {wrong} is out of range: the model's ids go from 0 to {model.vocab_size - 1}.")
