"""Compiles what an answer must follow: a JSON schema, or another grammar, into llguidance's matcher.

Nothing here imports MLX: a large schema is tried in a process of `tokenizing` first, under a limit of time.
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
"""A grammar from this size on is tried elsewhere first: one of 4,000 optional keys takes seconds."""
_MAX_CHARACTERS = 256 * 1024
_MAX_DEPTH = 64
_ANY_OBJECT = '{"type":"object"}'
_KEPT = 4
"""Compiled grammars that a model keeps: clients send the same one again and again."""


@dataclass(frozen=True)
class GrammarTokenizer:
    """A model's tokenizer as llguidance knows it."""

    known: LLTokenizer
    markers: npt.NDArray[np.int64]
    """Ids of tokens that are no text, such as ends of turn."""


class GrammarModel(Protocol):
    """What a grammar needs of a model: one in memory, or its tokenizer alone."""

    grammar_tokenizer: Any
    """As `GrammarTokenizer`, once it was needed."""
    grammars: dict[tuple[str, str], Any]
    """Compiled ones by syntax and text."""

    @property
    def name(self) -> str:
        """As shown."""

    @property
    def tokenizer(self) -> Any:
        """mlx-lm's TokenizerWrapper."""

    @property
    def vocab_size(self) -> int:
        """Size of the logits."""

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Every token that ends a turn."""


def compile_schema(model: GrammarModel, schema: str, syntax: GrammarSyntax = "json_schema") -> LLMatcher:
    """Return what follows a schema, at its beginning; takes up to seconds, not for the MLX thread.

    Args:
        model: the model; its tokenizer is prepared once and kept.
        schema: a JSON schema as text; `{}` is any JSON object.
        syntax: how it is written, where it is something else.

    Raises:
        OpError: `validation_error`: it is no schema, too large, or asks for what cannot be promised;
            `dependency_missing`; `model_not_runnable`: the model's tokenizer is of an unusual kind.
    """
    compiled = model.grammars.get((syntax, schema))
    if compiled is None:
        compiled = _compiled(model, schema, syntax)
        model.grammars[syntax, schema] = compiled
        while len(model.grammars) > _KEPT:
            with contextlib.suppress(KeyError, RuntimeError):  # another thread does the same
                del model.grammars[next(iter(model.grammars))]
    return compiled.deep_copy()


def _compiled(model: GrammarModel, schema: str, syntax: GrammarSyntax) -> LLMatcher:
    text = _checked(schema) if syntax == "json_schema" else _checked_size(schema)
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
        raise _invalid(reason_of(str(error))) from error
    what = "JSON schema" if syntax == "json_schema" else "grammar"
    matcher = LLMatcher(model.grammar_tokenizer.known, grammar, log_level=0, limits=_limits())
    if matcher.is_error():
        raise _invalid(reason_of(matcher.get_error()), what)
    matcher.compute_bitmask()  # shows a schema that nothing fits, and warms up
    if matcher.is_error():
        raise _invalid(reason_of(matcher.get_error()), what)
    return matcher


def _limits() -> LLParserLimits:
    """Return what a grammar may cost: a token's mask some 15 ms at most, since all streams wait for it."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=250_000,
        max_grammar_size=500_000,
    )


def _without_markers(written: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Return a tokenizer.json without its added tokens, and their ids.

    `<think>`, an end of turn and their like are no text of an answer: where a string has to hold one it
    is spelled out. Else llguidance would take the marker's own token for it.
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
            f"{model.name} cannot be made to follow a JSON schema: its tokenizer is of an unusual kind.",
            remedy=Remedy.LEAVE_OUT_GRAMMAR,
        ) from error


def _checked(schema: str) -> str:
    """Return a schema as the compiler takes it."""
    _checked_size(schema)
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
    value.pop("x-guidance", None)  # options of the compiler, which are ours to choose
    return json.dumps(value)


def _checked_size(text: str) -> str:
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


def reason_of(said: str) -> str:
    """Return the first sentence of an error, without what follows for the compiler's own developers."""
    if said.startswith(("panic", "ParserTooComplex", "LexerTooComplex")):  # a panic: mostly too many symbols
        return "it is too large or too complex for the compiler"
    if said.startswith("NoExtension"):
        return "no answer fits it, as where a $ref leads only back to itself"
    first = said.split("\n<", 1)[0].strip().replace("\n", " ")
    return printable(" ".join(first.split()))[:200].rstrip(".") or "it cannot be compiled"


def _invalid(reason: str, what: str = "JSON schema") -> OpError:
    return OpError(
        ErrorType.VALIDATION_ERROR,
        f"The {what} cannot be followed: {reason}.",
        remedy=Remedy.CHANGE_GRAMMAR,
    )
