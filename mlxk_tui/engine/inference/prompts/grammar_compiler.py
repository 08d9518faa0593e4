"""Compiles a JSON schema or another grammar into a matcher of llguidance.

This module does not import MLX: a large schema is first compiled in a tokenizer process, with a time limit.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from mlxk_tui.engine.generation import GrammarSyntax
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import printable

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

LARGE_CHARACTERS = 16 * 1024
"""Size of a grammar from which a tokenizer process compiles it first: 4,000 optional keys take seconds."""
_MAX_CHARACTERS = 256 * 1024
_MAX_DEPTH = 64
_ANY_OBJECT = '{"type":"object"}'
_MAX_CACHED = 4
"""Compiled grammars that are cached per model: clients often send the same one again."""


@dataclass(frozen=True)
class GrammarTokenizer:
    """A model's tokenizer for llguidance."""

    tokenizer: LLTokenizer
    markers: npt.NDArray[np.int64]
    """Ids of added tokens, which are not text, such as end-of-turn tokens, (markers,)."""


class GrammarModel(Protocol):
    """The properties of a model that a grammar needs; a loaded model or its tokenizer alone."""

    grammar_tokenizer: Any
    """A `GrammarTokenizer`; None until it is first needed."""
    grammars: dict[tuple[str, str], Any]
    """Compiled grammars by syntax and text."""

    @property
    def name(self) -> str:
        """The name for error messages."""

    @property
    def tokenizer(self) -> Any:
        """mlx-lm's TokenizerWrapper."""

    @property
    def vocab_size(self) -> int:
        """The size of the logits."""

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The ids of all end-of-turn tokens."""


def compile_grammar(model: GrammarModel, grammar: str, syntax: GrammarSyntax = "json_schema") -> LLMatcher:
    """Return a new matcher for a grammar. This may take seconds, so do not call it on the MLX thread.

    Args:
        model: the model; its tokenizer is converted once, and compiled grammars are cached in it.
        grammar: by default a JSON schema as text, where `{}` is any JSON object.
        syntax: the syntax of `grammar`.

    Raises:
        OpError: `validation_error`: the grammar is invalid, too large, or cannot be guaranteed;
            `dependency_missing`; `model_not_runnable`: the model's tokenizer is not supported.
    """
    compiled = model.grammars.get((syntax, grammar))
    if compiled is None:
        compiled = _compile(model, grammar, syntax)
        model.grammars[syntax, grammar] = compiled
        while len(model.grammars) > _MAX_CACHED:
            with contextlib.suppress(KeyError, RuntimeError):  # another thread does the same
                del model.grammars[next(iter(model.grammars))]
    return compiled.deep_copy()


def _compile(model: GrammarModel, given: str, syntax: GrammarSyntax) -> LLMatcher:
    text = _normalize_schema(given) if syntax == "json_schema" else _check_size(given)
    try:
        from llguidance import LLMatcher
    except ImportError as error:
        raise OpError(
            ErrorType.DEPENDENCY_MISSING,
            "Answers that follow a JSON schema need the package llguidance.",
            remedy=Remedy.INSTALL_PACKAGE,
            facts=ErrorFacts(package="llguidance"),
        ) from error
    if model.grammar_tokenizer is None:
        model.grammar_tokenizer = _prepare_tokenizer(model)
    try:
        grammar = text
        if syntax == "json_schema":
            grammar = LLMatcher.grammar_from_json_schema(text, overrides={"whitespace_flexible": False})
    except ValueError as error:
        raise _invalid(error_reason(str(error))) from error
    what = "JSON schema" if syntax == "json_schema" else "grammar"
    matcher = LLMatcher(model.grammar_tokenizer.tokenizer, grammar, log_level=0, limits=_limits())
    if matcher.is_error():
        raise _invalid(error_reason(matcher.get_error()), what)
    matcher.compute_bitmask()  # fails for a schema that no text can match; also a warm-up
    if matcher.is_error():
        raise _invalid(error_reason(matcher.get_error()), what)
    return matcher


def _limits() -> LLParserLimits:
    """Return limits with which a token's mask takes about 15 ms at most, because all streams wait for it."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=250_000,
        max_grammar_size=500_000,
    )


def _without_markers(written: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Return the content of a tokenizer.json without its added tokens, and their ids.

    Added tokens such as `<think>` or end-of-turn tokens are not text of an answer. A string that contains
    such text must be spelled out with ordinary tokens; otherwise llguidance would use the added token.
    """
    ids = [int(token["id"]) for token in written["added_tokens"]]
    vocabulary = written["model"].get("vocab")
    if isinstance(vocabulary, dict):
        names = {number: name for name, number in vocabulary.items()}
        for number in ids:
            if number in names:
                del vocabulary[names[number]]
                vocabulary[f"marker-{number}"] = number
    elif isinstance(vocabulary, list):
        for number in ids:
            if number < len(vocabulary):
                vocabulary[number][0] = f"marker-{number}"
    return {**written, "added_tokens": []}, ids


def _prepare_tokenizer(model: GrammarModel) -> GrammarTokenizer:
    from llguidance import LLTokenizer

    try:
        backend = copy.copy(model.tokenizer.backend_tokenizer)
        backend.no_padding()
        backend.no_truncation()
        size = max(model.vocab_size, backend.get_vocab_size(with_added_tokens=True))
        written, markers = _without_markers(json.loads(backend.to_str()))
        tokenizer = LLTokenizer(json.dumps(written), n_vocab=size, eos_token=min(model.stop_tokens))
        return GrammarTokenizer(tokenizer, np.asarray(markers, dtype=np.int64))
    except Exception as error:
        raise OpError(
            ErrorType.MODEL_NOT_RUNNABLE,
            f"{model.name} cannot follow a JSON schema: its kind of tokenizer is not supported.",
            remedy=Remedy.LEAVE_OUT_GRAMMAR,
        ) from error


def _normalize_schema(schema: str) -> str:
    """Return a JSON schema in the form that the compiler accepts."""
    _check_size(schema)
    try:
        value = json.loads(schema)
    except (ValueError, RecursionError):
        raise _invalid("it is not JSON") from None
    if value is True or value == {}:
        return _ANY_OBJECT
    if not isinstance(value, dict):
        raise _invalid("it is not an object")
    if _deeper_than(value, _MAX_DEPTH):
        raise _invalid(f"it is nested more than {_MAX_DEPTH} deep")
    value.pop("x-guidance", None)  # compiler options, which clients may not set
    return json.dumps(value)


def _check_size(text: str) -> str:
    if len(text) > _MAX_CHARACTERS:
        raise _invalid(f"it has more than {_MAX_CHARACTERS:,} characters")
    return text


def _deeper_than(value: object, depth: int) -> bool:
    level: list[object] = [value]
    for _ in range(depth):
        level = [
            inner
            for item in level
            if isinstance(item, (Mapping, list))
            for inner in (item.values() if isinstance(item, Mapping) else item)
        ]
        if not level:
            return False
    return True


def error_reason(text: str) -> str:
    """Return the reason in an error message of llguidance, without its details for developers."""
    if text.startswith(("panic", "ParserTooComplex", "LexerTooComplex")):  # often too many symbols
        return "it is too large or too complex for the compiler"
    if text.startswith("NoExtension"):
        return "no answer can match it, for example because a $ref only refers to itself"
    first = text.split("\n<", 1)[0].strip().replace("\n", " ")
    return printable(" ".join(first.split()))[:200].rstrip(".") or "it cannot be compiled"


def _invalid(reason: str, what: str = "JSON schema") -> OpError:
    return OpError(
        ErrorType.VALIDATION_ERROR,
        f"The {what} cannot be followed: {reason}.",
        remedy=Remedy.CHANGE_GRAMMAR,
    )
