"""Errors carry a remedy that each front end words; nobody finds anything out by reading a message."""

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
from mlxk_tui.engine.protocol import RequestFault
from mlxk_tui.ops.core.errors import ContextOverflow, ErrorType, OpError
from mlxk_tui.ops.core.remedies import SHARED_WORDS, ErrorFacts, Remedy
from mlxk_tui.server import error_text as http
from mlxk_tui.ui.widgets import error_text as app
from mlxk_tui_headless import error_text as command_line

ROOTS = {
    "mlxk_tui": Path(mlxk_tui.__file__).parent,
    "mlxk_tui_headless": Path(mlxk_tui_headless.__file__).parent,
}
FRONT_ENDS = {"app": app.WORDS, "command line": command_line.WORDS, "http": http.WORDS}

THIRD_PARTY = {
    "mlxk_tui.chats.database": "sqlite3 tells what it is by its text alone before Python 3.11",
    "mlxk_tui.engine.inference.weights.loading": "MLX raises RuntimeError for memory that ran out",
    "mlxk_tui.ops.core.text": "whether a finding's sentence names its file, which spares a line",
    "mlxk_tui.ops.hub.errors": "what httpx makes of a certificate that is not trusted",
    "mlxk_tui.ops.hub.proxies": "httpx names what is wrong with a proxy in its text alone",
    "mlxk_tui.ops.push.upload_worker": "huggingface_hub and the hub tell two faults by their text alone",
    "mlxk_tui_headless.cli": "Typer puts the name of an exception before what it says",
}
"""Modules that have to read what others wrote: boundaries, which make a type of it."""

SEARCHES = {
    *("startswith", "endswith", "find", "rfind", "index", "count", "replace", "translate"),
    *("split", "rsplit", "partition", "rpartition", "removeprefix", "removesuffix"),
}
PATTERNS = {"search", "match", "fullmatch", "findall", "finditer", "sub"}
HARMLESS = {"sentence", "printable", "error_text", "strip", "lower", "casefold"}
"""Calls that give a message back, in another form."""


@cache
def modules() -> dict[str, ast.Module]:
    """Return the tree of every module of the product, by its name."""
    found = {}
    for package, root in ROOTS.items():
        for path in sorted(root.rglob("*.py")):
            name = ".".join((package, *path.relative_to(root).with_suffix("").parts))
            if not name.startswith("mlxk_tui.demo.hub."):  # a hub of its own, which words its refusals
                found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def called(node: ast.AST) -> str:
    """Return the last part of the name that a call calls."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


class Reader:
    """Finds where a function looks into the text of an error."""

    def __init__(self, function: ast.AST) -> None:
        self.nodes = list(ast.walk(function))
        self.texts: set[str] = {"message"}
        for node in self.nodes:
            if isinstance(node, ast.Assign) and self.is_message(node.value):
                self.texts |= {target.id for target in node.targets if isinstance(target, ast.Name)}

    def is_message(self, node: ast.AST) -> bool:
        """Tell whether an expression is the message of an error, or a form of it."""
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

    def looks(self) -> Iterator[ast.expr]:
        """Yield what looks into a message."""
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


def test_no_module_looks_into_a_message() -> None:
    found: dict[str, set[str]] = {}
    for name, tree in modules().items():
        for function in functions(tree):
            for node in Reader(function).looks():
                found.setdefault(name, set()).add(f"{node.lineno}: {ast.unparse(node)}")
    assert {name: sorted(where) for name, where in found.items() if name not in THIRD_PARTY} == {}
    assert sorted(THIRD_PARTY.keys() - found.keys()) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(error):\n    return 'force' in error.message", 1),
        ("def f(error):\n    said = sentence(error.message)\n    return said.partition('. ')[0]", 1),
        ("def f(error):\n    return _FORCE.sub('.', error.message.lower())", 1),
        ("def f(error):\n    return str(error).startswith('Port')", 1),
        ("def f(error):\n    return f'{error.message} Again.', error.type in {1, 2}", 0),
    ],
)
def test_the_walk_sees_what_it_is_for(source: str, found: int) -> None:
    assert len(list(Reader(ast.parse(source)).looks())) == found


# -- what messages hold --------------------------------------------------------------------------

INSIDE = ("ops", "engine", "server", "chats", "transfers")
"""Packages whose errors every front end shows."""
FRONT_END_WORDS = re.compile(
    r"(?<![\w-])--?[a-z][\w-]*"  # an option
    r"|mlxk-headless|\bpip install\b|\bhf auth\b"  # a command
    r"|\bF\d{1,2}\b|\bctrl\+|\besc\b"  # a key
    r"|(?:^|[.;:,] )[b-z] [a-z]+s\b|\bwith [b-z]\b"  # a key, such as `m chooses one`
)


def error_makers(tree: ast.Module) -> set[str]:
    """Return the names of what makes an error in a module: the class, and functions that return one."""
    made = {"OpError", "NotWholeError", "Failure", "RequestFault"}
    return made | {
        one.name
        for one in functions(tree)
        if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))
        and one.returns is not None
        and "Error" in ast.unparse(one.returns)
    }


def texts_of_errors(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and each text that can become a part of an error's message."""
    makers = error_makers(tree)
    for function in functions(tree):
        nodes = list(ast.walk(function))
        calls = [node for node in nodes if isinstance(node, ast.Call) and called(node) in makers]
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
def test_words_of_a_front_end_are_known(text: str) -> None:
    assert FRONT_END_WORDS.search(text)


# -- what front ends say -------------------------------------------------------------------------


def fields(template: str) -> set[str]:
    """Return the facts that words name."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name} - {"when"}


def test_every_remedy_has_words_in_every_front_end_where_it_can_appear() -> None:
    for name, words in FRONT_ENDS.items():
        silent = set(Remedy) - words.keys() - SHARED_WORDS.keys()
        assert silent == (http.NEVER if name == "http" else set()), name
    assert not http.NEVER & (http.WORDS.keys() | SHARED_WORDS.keys())
    known = set(ErrorFacts.__dataclass_fields__)
    for words in (SHARED_WORDS, *FRONT_ENDS.values()):
        for remedy, template in words.items():
            assert fields(template) <= known, remedy


def named(tree: ast.AST) -> set[str]:
    """Return the names of the remedies that occur in it."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if getattr(node.value, "id", "") == "Remedy"}


def test_errors_carry_the_facts_that_their_remedies_name() -> None:
    needed = {
        remedy.name: set().union(
            *(fields(words[remedy]) for words in (SHARED_WORDS, *FRONT_ENDS.values()) if remedy in words)
        )
        for remedy in Remedy
    }
    used: set[str] = set()
    for name, tree in modules().items():
        if name.endswith(("remedies", "error_text")):
            continue
        used |= named(tree)
        makers = error_makers(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and called(node) in makers:
                facts = next((word.value for word in node.keywords if word.arg == "facts"), None)
                given = {word.arg for word in facts.keywords} if isinstance(facts, ast.Call) else set()
                for remedy in named(node):
                    assert needed[remedy] <= given, f"{name}:{node.lineno}: {remedy} without its facts"
    assert sorted({remedy.name for remedy in Remedy} - used) == []


@pytest.mark.parametrize("front_end", [app, command_line, http], ids=list(FRONT_ENDS))
def test_a_front_end_says_the_cause_and_the_remedy(front_end: object) -> None:
    error = OpError(
        ErrorType.DEPENDENCY_MISSING,
        "It is not here.",
        remedy=Remedy.INSTALL_PACKAGE,
        facts=ErrorFacts(package="mlx-lm"),
    )
    error_text = front_end.error_text  # type: ignore[attr-defined]  # the three are alike in it
    assert error_text(error) == "It is not here. Install it with 'pip install mlx-lm'."
    assert error_text(OpError(error.type, error.message)) == "It is not here."
    assert error_text(OpError(error.type, error.message, remedy=Remedy.INSTALL_PACKAGE)) == "It is not here."


@pytest.mark.parametrize(("wait_s", "when"), [(None, "later"), (30, "in 30 seconds")])
def test_how_long_to_wait_is_a_fact(wait_s: int | None, when: str) -> None:
    error = OpError(
        ErrorType.NETWORK_ERROR, "Busy.", remedy=Remedy.TRY_LATER, facts=ErrorFacts(wait_s=wait_s)
    )
    assert command_line.error_text(error) == f"Busy. Try again {when}."


# -- what other processes and files hold ---------------------------------------------------------

TOLD = OpError(
    ErrorType.INSUFFICIENT_MEMORY,
    "a/b needs 3 GB.",
    remedy=Remedy.CHOOSE_SMALLER_MODEL,
    facts=ErrorFacts(name="a/b", needed_bytes=3, available_bytes=2),
)


def told(error: OpError) -> tuple[object, ...]:
    """Return what goes from one process to another."""
    return error.type, error.message, error.remedy, error.facts


def test_an_error_crosses_the_pipe_of_the_engine_whole() -> None:
    assert from_json(to_json(RequestFault.of(7, TOLD))) == RequestFault.of(7, TOLD)
    back = from_json(to_json(RequestFault.of(7, TOLD))).error
    assert told(back) == told(TOLD)
    long = OpError(ErrorType.CONTEXT_LENGTH_EXCEEDED, "Long.", overflow=ContextOverflow(9, 5))
    assert from_json(to_json(RequestFault.of(7, long))).error.overflow == ContextOverflow(9, 5)


def test_an_error_survives_as_json_and_what_is_not_known_is_left_out() -> None:
    back = OpError.from_parts(TOLD.parts)
    assert told(back) == told(TOLD)
    facts = {"name": "a/b", "needed_bytes": "3", "wand": "elder"}
    newer = OpError.from_parts({**TOLD.parts, "remedy": "wave_a_wand", "facts": facts})
    assert (newer.remedy, newer.facts) == (None, ErrorFacts(name="a/b"))
    older = OpError.from_parts({"type": "disk_full", "message": "No space is left. Free some."})
    assert (older.remedy, older.facts, older.message) == (None, ErrorFacts(), "No space is left. Free some.")


def test_another_type_keeps_remedy_and_facts() -> None:
    denied = TOLD.as_type(ErrorType.UPLOAD_FAILED, "The upload failed.")
    assert (denied.type, denied.message) == (ErrorType.UPLOAD_FAILED, "The upload failed.")
    assert (denied.remedy, denied.facts) == (TOLD.remedy, TOLD.facts)
