"""The config file: read with what is wrong with it, and changed without losing comments and order."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from mlxk_tui.ops.core.files import replace_file

_MAX_CONFIG_BYTES = 1_000_000


class ConfigError(Exception):
    """A setting cannot be used; the text says where it stands and what to do."""


def read(path: Path, known: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the config file and what is wrong with it as a whole, as sentences.

    Args:
        path: the file, which need not be there.
        known: names of all settings; others are left out and told of.
    """
    try:
        with open(path, "rb") as stream:
            raw = stream.read(_MAX_CONFIG_BYTES)
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        return {}, [f"{path} cannot be read: {error.strerror}. The defaults are used."]
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(raw.decode()).unwrap()
    except UnicodeDecodeError:
        return {}, [f"{path} is not text in UTF-8. Correct the file. The defaults are used."]
    except TOMLKitError as error:
        return {}, [f"{path} is not valid TOML: {error}. Correct the file. The defaults are used."]
    import difflib

    problems = []
    for name in [name for name in document if name not in known]:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean `{near[0]}`?" if near else "remove that line."
        problems.append(f"{path}: there is no setting `{name}`; {hint}")
        del document[name]
    return document, problems


def save(path: Path, name: str, value: str | float | bool) -> None:
    """Write one setting into the config file, keeping comments and order; in one step, or not at all.

    Raises:
        ConfigError: the file cannot be read or written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.resolve()  # a config that is a link into a dotfiles folder stays one
        text = target.read_text(encoding="utf-8") if target.exists() else ""
        document = tomlkit.parse(text)
        document[name] = value
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        replace_file(target, tomlkit.dumps(document), mode=mode, exact_mode=True)
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8, so `{name}` was not saved.") from None
    except TOMLKitError as error:
        raise ConfigError(f"{path} is not valid TOML, so `{name}` was not saved: {error}") from None
    except OSError as error:
        raise ConfigError(f"`{name}` was not saved to {path}: {error.strerror}.") from None
