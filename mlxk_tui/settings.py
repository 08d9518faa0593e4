"""The settings: one model, filled from command line, environment, config file and defaults, in that order.

The model is a dataclass. Pydantic is imported only to validate given values: importing it takes 0.1 s, half
the startup time of an empty Textual app.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import platformdirs

from mlxk_tui.config_file import ConfigError, read
from mlxk_tui.ops.contract.terms import CpuWeights

if TYPE_CHECKING:
    from mlxk_tui.engine.memory import WeightsPolicy
    from mlxk_tui.ops.cache.cache import Cache
    from mlxk_tui.server.options import ServerOptions

ENV_PREFIX = "MLXK_"
"""Prefix of the environment variables of settings, such as `MLXK_THEME`."""
_HUB_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")

TransferBackend = Literal["mlxk", "hub"]
SortColumn = Literal["name", "org", "type", "quant", "size", "modified", "state"]


@dataclass(frozen=True)
class Settings:
    """Everything a user can set."""

    cache_dir: Path | None = field(
        default=None,
        metadata={
            "about": "Hub cache folder (contains `models--*`). `HF_HUB_CACHE` overrides the config file."
        },
    )
    theme: str = field(
        default="mlxk-dark",
        metadata={
            "about": "Theme: `mlxk-dark`, `mlxk-light`, `ansi-dark`, `ansi-light` or any Textual theme."
        },
    )
    animations: bool = field(
        default=True,
        metadata={"about": "Animations; turn them off for slow connections."},
    )
    refresh_seconds: float = field(
        default=2.0,
        metadata={
            "about": "Interval at which the cache is checked for changes, in seconds; 0: never.",
            "limits": {"ge": 0, "le": 3600},
        },
    )
    sort: SortColumn = field(
        default="name",
        metadata={"about": "Sort column: `name`, `org`, `type`, `quant`, `size`, `modified` or `state`."},
    )
    sort_reverse: bool = field(default=False, metadata={"about": "Sort in descending order."})
    filter: str = field(
        default="", metadata={"about": "Initial filter of the model list, such as `type:chat`."}
    )
    show_all: bool = field(default=True, metadata={"about": "List models of other frameworks than MLX, too."})
    parallel_transfers: int = field(
        default=2,
        metadata={
            "about": "Maximum number of pulls and pushes at once; others wait.",
            "limits": {"ge": 1, "le": 8},
        },
    )
    rate_limit: float = field(
        default=0.0,
        metadata={
            "about": "Maximum rate of all downloads together, in MB/s; 0: no limit.",
            "limits": {"ge": 0, "le": 100_000},
        },
    )
    transfer_backend: TransferBackend = field(
        default="mlxk",
        metadata={"about": "Downloader of pulls: `mlxk` (resumable) or `hub` (huggingface_hub with Xet)."},
    )
    check_updates: bool = field(
        default=False,
        metadata={
            "about": "Ask the hub for updates of the cached models when the app starts, at most once a day."
        },
    )
    push: bool = field(
        default=False,
        metadata={"about": "Enable the experimental push, like `MLXK2_ENABLE_EXPERIMENTAL_PUSH=1`."},
    )
    idle_unload_minutes: float = field(
        default=30.0,
        metadata={
            "about": "Idle minutes after which a model is unloaded; 0: never.",
            "limits": {"ge": 0, "le": 10_080},
        },
    )
    cpu_weights: CpuWeights = field(
        default=CpuWeights.AUTO,
        metadata={"about": "Weights without a GPU: `float32`, as `stored`, or `auto`: float32 if it fits."},
    )
    model_cpu_weights: Mapping[str, CpuWeights] = field(
        default_factory=dict,
        metadata={"about": "`cpu_weights` of individual models: a table of names and values."},
    )
    server_host: str = field(
        default="127.0.0.1",
        metadata={"about": "Address the server listens on; other than loopback requires an API key."},
    )
    server_port: int = field(
        default=8000,
        metadata={"about": "Port of the server; 0 picks a free one.", "limits": {"ge": 0, "le": 65535}},
    )
    server_model: str = field(default="", metadata={"about": "Model for requests that name none."})
    server_max_tokens: int = field(
        default=0,
        metadata={
            "about": "Maximum tokens of an answer if the request sets none; 0: half the context.",
            "limits": {"ge": 0},
        },
    )
    server_origins: str = field(
        default="",
        metadata={"about": "Origins of web pages that may call the server (CORS), separated by commas."},
    )
    server_hosts: str = field(
        default="",
        metadata={"about": "Additional host names of the server, separated by commas."},
    )
    keymap: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"about": "Custom keys: a table of binding ids (see `docs/keys.md`) and keys."},
    )


FIELDS = {declared.name: declared for declared in fields(Settings)}
"""Every setting by name."""


def _validated(values: Mapping[str, object]) -> Settings:
    """Return the settings with these values instead of the defaults.

    Raises:
        pydantic.ValidationError: a value has the wrong type or is out of range.
    """
    if not values:
        return Settings()
    from pydantic import Field, create_model

    hints = get_type_hints(Settings)
    definitions: dict[str, Any] = {}
    for name in values:
        definitions[name] = (hints[name], Field(**FIELDS[name].metadata.get("limits", {})))
    given = create_model("Settings", **definitions)(**values)
    return Settings(**{name: getattr(given, name) for name in values})


@dataclass(frozen=True)
class LoadedSettings:
    """Settings, their sources, and problems found while loading them."""

    settings: Settings
    problems: tuple[str, ...]
    """Sentences that name the file or variable, the setting and the fix."""
    path: Path
    """The config file; it may not exist."""
    from_command_line: frozenset[str] = frozenset()
    """Names of the settings given on the command line."""
    from_environment: frozenset[str] = frozenset()
    """Names of the settings given in the environment and not on the command line."""
    key_folder: Path | None = None
    """Folder of the server's API keys; None means the folder of the config file."""

    @property
    def key_file(self) -> Path:
        """The file of the server's API keys."""
        return (self.key_folder or self.path.parent) / "api-keys"

    def where(self, name: str) -> str:
        """Return the source of a setting that is not the default: option, variable or file."""
        if name in self.from_command_line:
            return f"--{name.replace('_', '-')}"
        return variable(name) if name in self.from_environment else str(self.path)


def weights_policy(loaded: LoadedSettings) -> WeightsPolicy:
    """Return the format of weights without a GPU; the command line applies to every model."""
    from mlxk_tui.engine.memory import WeightsPolicy

    for_all = "cpu_weights" in loaded.from_command_line
    return WeightsPolicy(
        loaded.settings.cpu_weights, {} if for_all else dict(loaded.settings.model_cpu_weights)
    )


def server_options(settings: Settings, given: Mapping[str, Any] | None = None) -> ServerOptions:
    """Return the options of the server, without the API keys that are stored elsewhere.

    Args:
        settings: where an option that is not given comes from.
        given: options of a command line by their names in `ServerOptions`; None means not given. Origins and
            host names are added to those of the settings.
    """
    from mlxk_tui.server.options import ServerOptions, listed

    options = ServerOptions(
        host=settings.server_host,
        port=settings.server_port,
        origins=listed(settings.server_origins),
        hosts=listed(settings.server_hosts),
        model=settings.server_model or None,
        max_tokens=settings.server_max_tokens or None,
    )
    more = {name: value for name, value in (given or {}).items() if value is not None}
    for name in ("origins", "hosts"):
        more[name] = (*getattr(options, name), *more.get(name, ()))
    return replace(options, **more)


def for_demo(loaded: LoadedSettings, folder: Path) -> LoadedSettings:
    """Return the settings for a demo: the user's theme and keys, and default settings of the server.

    The server settings of the config file are for the user's models and API keys. The demo stores its API
    keys in `folder`.
    """
    overridden = loaded.from_command_line | loaded.from_environment
    defaults: dict[str, Any] = {
        name: declared.default
        for name, declared in FIELDS.items()
        if name.startswith("server_") and name not in overridden
    }
    return replace(loaded, settings=replace(loaded.settings, **defaults), key_folder=folder)


def cache_for(loaded: LoadedSettings, environ: Mapping[str, str]) -> Cache:
    """Return the cache to use.

    The first source that is set wins: `--cache-dir`, `MLXK_CACHE_DIR`, huggingface_hub's variables
    (`HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`), `cache_dir` in the config file, the default.
    """
    from mlxk_tui.ops.cache.cache import Cache

    folder = loaded.settings.cache_dir
    overridden = "cache_dir" in loaded.from_command_line | loaded.from_environment
    if folder is not None and (overridden or not any(environ.get(name) for name in _HUB_VARIABLES)):
        # Not `Cache.at`, which would expand variables: dollar signs are part of the name.
        return Cache(Path(os.path.abspath(os.path.expanduser(folder))))
    return Cache.from_environment(environ)


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of the config file; `MLXK_CONFIG` overrides it."""
    override = (os.environ if environ is None else environ).get(f"{ENV_PREFIX}CONFIG")
    if override:
        return Path(override).expanduser()
    return platformdirs.user_config_path("mlxk-tui") / "config.toml"


def load(command_line: Mapping[str, object] | None = None, path: Path | None = None) -> LoadedSettings:
    """Load the settings. An invalid value is reported as a problem and replaced by the default.

    Args:
        command_line: values given there, by field name; None means not given.
        path: the config file; None means the default path.

    Raises:
        ConfigError: a value on the command line is not valid.
    """
    path = path or config_path()
    stored, problems = read(path, FIELDS)
    variables = _variables(os.environ)
    given = {name: value for name, value in (command_line or {}).items() if value is not None}
    for _ in range(2 * len(FIELDS) + 1):  # each round drops at least one invalid value
        errors: list[tuple[str, str]] = []
        try:
            settings = _validated({**stored, **_parsed(variables), **given})
            from_command_line = frozenset(given)
            from_environment = frozenset(variables) - from_command_line
            return LoadedSettings(settings, tuple(problems), path, from_command_line, from_environment)
        except _NotJsonError as error:
            errors = [(str(error), f"it must be JSON such as {_TABLES[str(error)]}")]
        except ValueError as error:
            errors = _explain(error)
        for name, cause in errors:
            if name in given:
                raise ConfigError(f"--{name.replace('_', '-')}: {cause}.") from None
            if variables.pop(name, None) is not None:
                used = "Using the config file's value." if name in stored else "Using the default."
                problems.append(f"{variable(name)} is not valid: {cause}. Fix or unset it. {used}")
            else:
                fix = "Fix or remove that line. Using the default."
                problems.append(f"{path}: `{name}` is not valid: {cause}. {fix}")
                stored.pop(name, None)
    raise ConfigError(f"{path}: the settings cannot be read.")


_TABLES = {
    "keymap": '{"models.delete": "D"}',
    "model_cpu_weights": '{"mlx-community/Qwen3-4B-4bit": "stored"}',
}
"""Settings that are tables, with an example; environment variables contain them as JSON."""


class _NotJsonError(Exception):
    """An environment variable for a table is not JSON; the argument is the name of the setting."""


def _parsed(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of environment variables; tables are parsed as JSON."""
    values: dict[str, Any] = dict(variables)
    for name in _TABLES.keys() & values.keys():
        values[name] = _table(name, values[name])
    return values


def _table(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise _NotJsonError(name) from None


_CAUSES = {
    "path_type": "it must be a folder in quotes",
    "string_type": "it must be text in quotes",
    "mapping_type": "it must be a table of names and values",
    "dict_type": "it must be a table of names and values",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "finite_number": "it must be a number",
}
"""Messages for pydantic's error codes; pydantic's own messages name Python types."""


def _explain(error: ValueError) -> list[tuple[str, str]]:
    """Return (setting, cause) for each error that pydantic found.

    Raises:
        ValueError: the error is not pydantic's.
    """
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        raise error
    causes = []
    for detail in error.errors():
        message = detail["msg"].replace("Input should be", "It must be")
        cause = _CAUSES.get(detail["type"]) or message[0].lower() + message[1:]
        causes.append((str(detail["loc"][0]), cause))
    return causes


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings given in environment variables; empty variables are ignored."""
    return {name: environ[variable(name)] for name in FIELDS if environ.get(variable(name))}


def variable(name: str) -> str:
    """Return the name of the environment variable of a setting."""
    return f"{ENV_PREFIX}{name.upper()}"


def reference() -> str:
    """Return the settings as a Markdown table for the documentation."""
    rows = ["| setting | variable | default | meaning |", "|---|---|---|---|"]
    for name, declared in FIELDS.items():
        default = getattr(Settings(), name)
        plain = default.value if isinstance(default, Enum) else default
        shown = str(plain).lower() if isinstance(plain, bool) else str(plain)
        cell = f"`{shown}`" if default not in (None, "", {}) else ""
        rows.append(f"| `{name}` | `{variable(name)}` | {cell} | {declared.metadata['about']} |")
    return "\n".join(rows) + "\n"
