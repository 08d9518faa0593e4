"""Reads a snapshot's small text files within bounds: config.json, model card, tokenizer settings."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from mlxk_tui.ops.cache.repo import Snapshot, SnapshotFile
from mlxk_tui.ops.core.files import read_bytes

MAX_JSON_BYTES = 8_000_000
"""Largest config-like JSON file that is parsed."""
MAX_INDEX_BYTES = 32_000_000
"""Largest weight index that is parsed; the largest real ones have about 9 MB."""
CANNOT_BE_READ = "cannot be read"
"""Problem of a file that exists but cannot be read."""
_MAX_DEPTH = 100
_MAX_CARD_HEAD = 65_536
_MAX_YAML_DEPTH = 20
_CHAT_TEMPLATE_KEY = re.compile(rb'"chat_template"\s*:(?!\s*null)')
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")

Json = dict[str, Any]
"""An untrusted JSON object, whose values can have any type."""


@dataclass(frozen=True)
class JsonFile:
    """The result of reading a JSON file."""

    exists: bool
    value: Json | None = None
    """The object; None unless the file contains a non-empty one."""
    problem: str | None = None
    """Why there is no object, as a predicate of the file's name: "is empty"."""


@dataclass(frozen=True)
class Documents:
    """Contents of a snapshot's small files."""

    files: dict[str, SnapshotFile] = field(default_factory=dict)
    """All files of the snapshot by relative path."""
    config: JsonFile = JsonFile(exists=False)
    card: Json = field(default_factory=dict)
    """Front matter of README.md; empty if it is missing or not valid YAML."""
    has_chat_template: bool = False


def read_documents(snapshot: Snapshot | None) -> Documents:
    """Read a snapshot's small files; a broken file becomes a JsonFile with a problem."""
    if snapshot is None:
        return Documents()
    files = {file.name: file for file in snapshot.files}
    return Documents(
        files=files,
        config=read_json(files.get("config.json"), MAX_JSON_BYTES),
        card=_front_matter(files.get("README.md")),
        has_chat_template=_has_chat_template(files),
    )


def read_json(file: SnapshotFile | None, limit: int) -> JsonFile:
    """Read a JSON object of at most `limit` bytes and 100 levels of nesting."""
    if file is None:
        return JsonFile(exists=False)
    if file.target is None or file.size is None:
        return JsonFile(exists=True, problem=CANNOT_BE_READ)
    if file.size == 0:
        return JsonFile(exists=True, problem="is empty")
    raw = read_bytes(file.target, limit) if file.size <= limit else b""
    if raw is None:
        return JsonFile(exists=True, problem=CANNOT_BE_READ)
    if file.size > limit or len(raw) > limit:
        return JsonFile(exists=True, problem=f"is larger than {limit // 1_000_000} MB")
    return parse_json(raw)


def parse_json(raw: bytes) -> JsonFile:
    """Parse bytes as a non-empty JSON object; anything else is a JsonFile with a problem."""
    try:
        value = json.loads(raw.decode("utf-8-sig"), parse_constant=str, parse_float=_finite)
    except RecursionError:
        return JsonFile(exists=True, problem="is nested too deeply")
    except UnicodeDecodeError:
        return JsonFile(exists=True, problem="is not UTF-8 text")
    except ValueError:
        return JsonFile(exists=True, problem="is not valid JSON")
    if not isinstance(value, dict):
        return JsonFile(
            exists=True, problem=f"contains a {_JSON_TYPES.get(type(value), 'value')}, not an object"
        )
    if not value:
        return JsonFile(exists=True, problem="is an empty object")
    if raw.count(b"{") + raw.count(b"[") > _MAX_DEPTH and _too_deep(value):
        return JsonFile(exists=True, problem="is nested too deeply")
    if b"\\ud" in raw or b"\\uD" in raw:  # possibly lone surrogates, which UTF-8 cannot encode
        value = _without_surrogates(value)
    return JsonFile(exists=True, value=value)


_JSON_TYPES: dict[type, str] = {list: "list", str: "string", int: "number", float: "number", bool: "boolean"}


def _finite(text: str) -> float | str:
    # Numbers beyond the range of a float would be printed as Infinity, which is not JSON.
    number = float(text)
    return number if math.isfinite(number) else text


def _too_deep(value: Json) -> bool:
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value


def _front_matter(file: SnapshotFile | None) -> Json:
    if file is None or file.target is None:
        return {}
    raw = read_bytes(file.target, _MAX_CARD_HEAD)
    return parse_front_matter(raw) if raw else {}


def parse_front_matter(raw: bytes) -> Json:
    """Return the YAML mapping between the first two `---` lines; empty if there is none.

    A byte order mark, CRLF, a missing end and broken YAML are tolerated. libyaml's composer recurses
    without a limit (deep nesting crashes PyYAML 6.0.3), so the depth is checked on the event stream,
    which does not recurse, before anything is composed.
    """
    text = raw.decode("utf-8-sig", "replace").replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return {}
    import yaml  # costs 15 ms; scans with cached verdicts read no card

    end = text.find("\n---", 3)
    block = text[4:end] if end >= 0 else text[4:]
    # The base loader creates only strings, lists and mappings: no numbers or dates that could be malformed.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        depth = 0
        for event in yaml.parse(block, Loader=loader):
            if isinstance(event, yaml.AliasEvent):  # cards do not need aliases, expansion bombs do
                return {}
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_YAML_DEPTH:
                return {}
        value = yaml.load(block, Loader=loader)  # noqa: S506 - the base loader constructs only strings
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _has_chat_template(files: dict[str, SnapshotFile]) -> bool:
    if any(name in files and files[name].size for name in _TEMPLATE_FILES):
        return True
    settings = files.get("tokenizer_config.json")
    if settings is None or settings.target is None or (settings.size or 0) > MAX_JSON_BYTES:
        return False
    # The file can have thousands of added tokens, so it is searched for the key and not parsed.
    raw = read_bytes(settings.target, MAX_JSON_BYTES)
    return bool(raw and _CHAT_TEMPLATE_KEY.search(raw))


def nonempty_str(value: Any) -> str | None:
    """Return an untrusted JSON or YAML value if it is a non-blank string, else None."""
    return value if isinstance(value, str) and value.strip() else None


def str_tuple(value: Any) -> tuple[str, ...]:
    """Return the strings of an untrusted value: a string, or those in a list."""
    if isinstance(value, str):
        return (value,)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def positive_int(source: Json, *keys: str) -> int | None:
    """Return the value of the first of `keys` that is a plausible positive integer (below 10**12)."""
    for key in keys:
        value = source.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**12:
            return value
    return None
