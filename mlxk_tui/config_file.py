"""Reads the config file and its problems, and changes settings without losing comments or order."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from mlxk_tui.ops.core.files import replace_file

_MAX_CONFIG_BYTES = 1_000_000


class ConfigError(Exception):
    """A setting cannot be used; the message names its source and the fix."""


def read(path: Path, known: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the config file and its problems, as sentences.

    Args:
        path: the file; it may not exist.
        known: names of all settings; other names are dropped and reported.
    """
    try:
        with open(path, "rb") as stream:
            raw = stream.read(_MAX_CONFIG_BYTES)
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        return {}, [f"{path} cannot be read: {error.strerror}. Using the defaults."]
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(raw.decode()).unwrap()
    except UnicodeDecodeError:
        return {}, [f"{path} is not UTF-8 text. Fix the file. Using the defaults."]
    except TOMLKitError as error:
        return {}, [f"{path} is not valid TOML: {error}. Fix the file. Using the defaults."]
    import difflib

    problems = []
    for name in [name for name in document if name not in known]:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"Did you mean `{near[0]}`?" if near else "Remove that line."
        problems.append(f"{path}: unknown setting `{name}`. {hint}")
        del document[name]
    return document, problems


def save(path: Path, name: str, value: str | float | bool) -> None:
    """Write one setting to the config file atomically; comments and order are preserved.

    Raises:
        ConfigError: the file cannot be read or written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.resolve()  # keep a symlink into a dotfiles folder
        text = target.read_text(encoding="utf-8") if target.exists() else ""
        document = tomlkit.parse(text)
        document[name] = value
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        replace_file(target, tomlkit.dumps(document), mode=mode, exact_mode=True)
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text, so `{name}` was not saved.") from None
    except TOMLKitError as error:
        raise ConfigError(f"{path} is not valid TOML, so `{name}` was not saved: {error}") from None
    except OSError as error:
        raise ConfigError(f"`{name}` was not saved to {path}: {error.strerror}.") from None
