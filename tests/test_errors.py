"""Errors have a remedy with a text in each front end, and no code parses messages."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import mlxk_tui
import mlxk_tui_headless
from mlxk_tui.engine.connection.wire import from_json, to_json
from mlxk_tui.engine.protocol import RequestFailed
from mlxk_tui.ops.core.errors import ContextOverflow, ErrorType, OpError
from mlxk_tui.ops.core.remedies import REMEDY_TEXTS, ErrorFacts, Remedy
from mlxk_tui.server import error_text as http
from mlxk_tui.ui.widgets import error_text as app
from mlxk_tui_headless import error_text as command_line

ROOTS = {
    "mlxk_tui": Path(mlxk_tui.__file__).parent,
    "mlxk_tui_headless": Path(mlxk_tui_headless.__file__).parent,
}
FRONT_ENDS = {"app": app.WORDS, "command line": command_line.WORDS, "http": http.WORDS}

THIRD_PARTY = {
    "mlxk_tui.chats.database": "before Python 3.11 sqlite3 errors have no code",
    "mlxk_tui.engine.inference.weights.loading": "MLX raises RuntimeError if memory runs out",
    "mlxk_tui.ops.core.text": "checks whether a finding's message names its file",
    "mlxk_tui.ops.hub.errors": "httpx reports an untrusted certificate as text",
    "mlxk_tui.ops.hub.proxies": "httpx reports proxy errors as text",
    "mlxk_tui.ops.push.upload_worker": "huggingface_hub and the hub report two errors as text",
    "mlxk_tui_headless.cli": "Typer prefixes messages with the name of the exception",
}
"""Modules at a boundary, which convert messages of other programs to types."""

SEARCHES = {
    *("startswith", "endswith", "find", "rfind", "index", "count", "replace", "translate"),
    *("split", "rsplit", "partition", "rpartition", "removeprefix", "removesuffix"),
}
PATTERNS = {"search", "match", "fullmatch", "findall", "finditer", "sub"}
HARMLESS = {"sentence", "printable", "error_text", "strip", "lower", "casefold"}
"""Calls that return a message in another form."""


@cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module, by name."""
    found = {}
    for package, root in ROOTS.items():
        for path in sorted(root.rglob("*.py")):
            name = ".".join((package, *path.relative_to(root).with_suffix("").parts))
            if not name.startswith("mlxk_tui.demo.hub."):  # the local hub, which writes its own messages
                found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def called(node: ast.AST) -> str:
    """Return the last part of the name of a called function."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


class MessageParsing:
    """Finds where a function parses the message of an error."""

    def __init__(self, function: ast.AST) -> None:
        self.nodes = list(ast.walk(function))
        self.texts: set[str] = {"message"}
        for node in self.nodes:
            if isinstance(node, ast.Assign) and self.is_message(node.value):
                self.texts |= {target.id for target in node.targets if isinstance(target, ast.Name)}

    def is_message(self, node: ast.AST) -> bool:
        """Return whether an expression is the message of an error, or a form of it."""
        if isinstance(node, ast.Attribute):
            return node.attr in {"message", "args"}
        if isinstance(node, ast.Name):
            return node.id in self.texts
        if isinstance(node, ast.Call):
            name, inner = called(node), list(node.args)
            if name == "str":
                return bool(inner) and isinstance(inner[0], ast.Name)
            if isinstance(node.func, ast.Attribute):
                inner.append(node.func.value)
            return name in HARMLESS and any(map(self.is_message, inner))
        return isinstance(node, ast.Subscript) and self.is_message(node.value)

    def uses(self) -> Iterator[ast.expr]:
        """Yield the expressions that parse a message."""
        for node in self.nodes:
            if isinstance(node, ast.Compare):
                sides = zip(node.ops, node.comparators, strict=True)
                if any(isinstance(op, (ast.In, ast.NotIn)) and self.is_message(side) for op, side in sides):
                    yield node
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                on_text = node.func.attr in SEARCHES and self.is_message(node.func.value)
                pattern = getattr(node.func.value, "id", "")
                by_pattern = node.func.attr in PATTERNS and (pattern == "re" or pattern.isupper())
                if on_text or (by_pattern and any(map(self.is_message, node.args))):
                    yield node


def functions(tree: ast.Module) -> list[ast.AST]:
    """Return the functions of a module."""
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


@pytest.mark.slow
def test_no_module_parses_error_messages() -> None:
    found: dict[str, set[str]] = {}
    for name, tree in modules().items():
        for function in functions(tree):
            for node in MessageParsing(function).uses():
                found.setdefault(name, set()).add(f"{node.lineno}: {ast.unparse(node)}")
    assert {name: sorted(where) for name, where in found.items() if name not in THIRD_PARTY} == {}
    assert sorted(THIRD_PARTY.keys() - found.keys()) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(error):\n    return 'force' in error.message", 1),
        ("def f(error):\n    text = sentence(error.message)\n    return text.partition('. ')[0]", 1),
        ("def f(error):\n    return _FORCE.sub('.', error.message.lower())", 1),
        ("def f(error):\n    return str(error).startswith('Port')", 1),
        ("def f(error):\n    return f'{error.message} Again.', error.type in {1, 2}", 0),
    ],
)
def test_parsing_of_messages_is_detected(source: str, found: int) -> None:
    assert len(list(MessageParsing(ast.parse(source)).uses())) == found


# -- contents of messages ------------------------------------------------------------------------

INSIDE = ("ops", "engine", "server", "chats", "transfers")
"""Packages whose errors are shown by every front end."""
FRONT_END_WORDS = re.compile(
    r"(?<![\w-])--?[a-z][\w-]*"  # an option
    r"|mlxk-headless|\bpip install\b|\bhf auth\b"  # a command
    r"|\bF\d{1,2}\b|\bctrl\+|\besc\b"  # a key
    r"|(?:^|[.;:,] )[b-z] [a-z]+s\b|\bwith [b-z]\b"  # a key, such as `m chooses one`
)


def error_factories(tree: ast.Module) -> set[str]:
    """Return the names of error classes, and of functions in the module that return errors."""
    classes = {"OpError", "BrokenModelError", "Failure", "RequestFailed"}
    return classes | {
        one.name
        for one in functions(tree)
        if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))
        and one.returns is not None
        and "Error" in ast.unparse(one.returns)
    }


def texts_of_errors(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each string that can become part of an error's message."""
    factories = error_factories(tree)
    for function in functions(tree):
        nodes = list(ast.walk(function))
        calls = [node for node in nodes if isinstance(node, ast.Call) and called(node) in factories]
        given = [arg for call in calls for arg in call.args]
        names = {arg.id for arg in given if isinstance(arg, ast.Name)}
        given += [
            node.value
            for node in nodes
            if isinstance(node, ast.Assign) and names & {getattr(target, "id", "") for target in node.targets}
        ]
        for value in given:
            for part in ast.walk(value):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def test_messages_name_no_option_key_or_command() -> None:
    found = [
        f"{name}:{line}: {text}"
        for name, tree in modules().items()
        if name.split(".")[1] in INSIDE
        for line, text in texts_of_errors(tree)
        if FRONT_END_WORDS.search(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "or force it with -f.",
        "give --api-key or",
        "'mlxk-headless list' shows",
        "F10 changes that.",
        "m chooses one.",
    ],
)
def test_front_end_terms_are_detected(text: str) -> None:
    assert FRONT_END_WORDS.search(text)


# -- texts of the front ends ----------------------------------------------------------------------


def fields(template: str) -> set[str]:
    """Return the facts used in a text."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name} - {"when"}


def test_every_remedy_has_a_text_in_each_front_end() -> None:
    for name, words in FRONT_ENDS.items():
        without_text = set(Remedy) - words.keys() - REMEDY_TEXTS.keys()
        assert without_text == (http.NEVER if name == "http" else set()), name
    assert not http.NEVER & (http.WORDS.keys() | REMEDY_TEXTS.keys())
    known = set(ErrorFacts.__dataclass_fields__)
    for words in (REMEDY_TEXTS, *FRONT_ENDS.values()):
        for remedy, template in words.items():
            assert fields(template) <= known, remedy


def named(tree: ast.AST) -> set[str]:
    """Return the names of the remedies used in a syntax tree."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if getattr(node.value, "id", "") == "Remedy"}


@pytest.mark.slow
def test_errors_carry_the_facts_that_their_remedies_name() -> None:
    needed = {
        remedy.name: set().union(
            *(fields(words[remedy]) for words in (REMEDY_TEXTS, *FRONT_ENDS.values()) if remedy in words)
        )
        for remedy in Remedy
    }
    used: set[str] = set()
    for name, tree in modules().items():
        if name.endswith(("remedies", "error_text")):
            continue
        used |= named(tree)
        factories = error_factories(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and called(node) in factories:
                facts = next((word.value for word in node.keywords if word.arg == "facts"), None)
                given = {word.arg for word in facts.keywords} if isinstance(facts, ast.Call) else set()
                for remedy in named(node):
                    assert needed[remedy] <= given, f"{name}:{node.lineno}: {remedy} without its facts"
    assert sorted({remedy.name for remedy in Remedy} - used) == []


@pytest.mark.parametrize("front_end", [app, command_line, http], ids=list(FRONT_ENDS))
def test_front_ends_show_cause_and_remedy(front_end: object) -> None:
    error = OpError(
        ErrorType.DEPENDENCY_MISSING,
        "It is not here.",
        remedy=Remedy.INSTALL_PACKAGE,
        facts=ErrorFacts(package="mlx-lm"),
    )
    error_text = front_end.error_text  # type: ignore[attr-defined]  # all three modules have it
    assert error_text(error) == "It is not here. Install it with 'pip install mlx-lm'."
    assert error_text(OpError(error.type, error.message)) == "It is not here."
    assert error_text(OpError(error.type, error.message, remedy=Remedy.INSTALL_PACKAGE)) == "It is not here."


@pytest.mark.parametrize(("wait_s", "when"), [(None, "later"), (30, "in 30 seconds")])
def test_remedy_text_contains_the_time_to_wait(wait_s: int | None, when: str) -> None:
    error = OpError(
        ErrorType.NETWORK_ERROR, "Busy.", remedy=Remedy.TRY_LATER, facts=ErrorFacts(wait_s=wait_s)
    )
    assert command_line.error_text(error) == f"Busy. Try again {when}."


# -- errors in other processes and files ----------------------------------------------------------

ERROR = OpError(
    ErrorType.INSUFFICIENT_MEMORY,
    "a/b needs 3 GB.",
    remedy=Remedy.CHOOSE_SMALLER_MODEL,
    facts=ErrorFacts(name="a/b", needed_bytes=3, available_bytes=2),
)


def parts(error: OpError) -> tuple[object, ...]:
    """Return the parts that are passed between processes."""
    return error.type, error.message, error.remedy, error.facts


def test_errors_survive_the_engine_protocol() -> None:
    assert from_json(to_json(RequestFailed.from_error(7, ERROR))) == RequestFailed.from_error(7, ERROR)
    back = from_json(to_json(RequestFailed.from_error(7, ERROR))).error
    assert parts(back) == parts(ERROR)
    long = OpError(ErrorType.CONTEXT_LENGTH_EXCEEDED, "Long.", overflow=ContextOverflow(9, 5))
    assert from_json(to_json(RequestFailed.from_error(7, long))).error.overflow == ContextOverflow(9, 5)


def test_errors_survive_json_and_unknown_parts_are_dropped() -> None:
    back = OpError.from_dict(ERROR.to_dict())
    assert parts(back) == parts(ERROR)
    facts = {"name": "a/b", "needed_bytes": "3", "wand": "elder"}
    newer = OpError.from_dict({**ERROR.to_dict(), "remedy": "wave_a_wand", "facts": facts})
    assert (newer.remedy, newer.facts) == (None, ErrorFacts(name="a/b"))
    older = OpError.from_dict({"type": "disk_full", "message": "No space is left. Free some."})
    assert (older.remedy, older.facts, older.message) == (None, ErrorFacts(), "No space is left. Free some.")


def test_changing_the_type_keeps_remedy_and_facts() -> None:
    denied = ERROR.as_type(ErrorType.UPLOAD_FAILED, "The upload failed.")
    assert (denied.type, denied.message) == (ErrorType.UPLOAD_FAILED, "The upload failed.")
    assert (denied.remedy, denied.facts) == (ERROR.remedy, ERROR.facts)
