"""The settings: one model, filled from command line, environment, config file and defaults, in that order.

The model is a dataclass that pydantic validates values against when there are any: importing pydantic
takes 0.1 s, half of what an empty Textual app needs to start.
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
    from mlxk_tui.engine.memory import WeightsChoice
    from mlxk_tui.ops.cache.cache import Cache

ENV_PREFIX = "MLXK_"
"""Start of every environment variable of the settings: `MLXK_THEME`, `MLXK_REFRESH_SECONDS`."""
_HUB_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")

TransferBackend = Literal["mlxk", "hub"]
SortColumn = Literal["name", "org", "type", "quant", "size", "modified", "state"]


@dataclass(frozen=True)
class Settings:
    """Everything a user can set."""

    cache_dir: Path | None = field(
        default=None,
        metadata={
            "about": "Hub cache folder (it holds `models--*`); in the file it gives way to `HF_HUB_CACHE`."
        },
    )
    theme: str = field(
        default="mlxk-dark",
        metadata={
            "about": "Colours: `mlxk-dark`, `mlxk-light`, `ansi-dark`, `ansi-light` or any theme of Textual."
        },
    )
    animations: bool = field(
        default=True,
        metadata={"about": "Whether anything may move that need not; off is calmer over slow connections."},
    )
    refresh_seconds: float = field(
        default=2.0,
        metadata={
            "about": "How often the cache is looked at for changes, in seconds; 0 never.",
            "limits": {"ge": 0, "le": 3600},
        },
    )
    sort: SortColumn = field(
        default="name",
        metadata={
            "about": "Column of the order: `name`, `org`, `type`, `quant`, `size`, `modified` or `state`."
        },
    )
    sort_reverse: bool = field(default=False, metadata={"about": "Whether the order is reversed."})
    filter: str = field(
        default="", metadata={"about": "Filter of the model list at the start, such as `type:chat`."}
    )
    show_all: bool = field(
        default=True, metadata={"about": "Whether models that are not made for MLX are listed too."}
    )
    parallel_transfers: int = field(
        default=2,
        metadata={
            "about": "How many pulls and pushes run at once; the others wait.",
            "limits": {"ge": 1, "le": 8},
        },
    )
    transfer_backend: TransferBackend = field(
        default="mlxk",
        metadata={
            "about": "Who moves the bytes of a pull: `mlxk` (resumable) or `hub` (huggingface_hub with Xet)."
        },
    )
    push: bool = field(
        default=False,
        metadata={
            "about": "Whether the experimental push may be used; so does `MLXK2_ENABLE_EXPERIMENTAL_PUSH=1`."
        },
    )
    idle_unload_minutes: float = field(
        default=30.0,
        metadata={
            "about": "After how many idle minutes a model leaves the memory; 0 never.",
            "limits": {"ge": 0, "le": 10_080},
        },
    )
    cpu_weights: CpuWeights = field(
        default=CpuWeights.AUTO,
        metadata={
            "about": "Weights without a GPU: `float32` copies, as `stored`, or `auto`: copies where they fit."
        },
    )
    model_cpu_weights: Mapping[str, CpuWeights] = field(
        default_factory=dict,
        metadata={"about": "The same for single models: their names and `auto`, `stored` or `float32`."},
    )
    server_host: str = field(
        default="127.0.0.1",
        metadata={"about": "Where the server listens; beyond this machine it takes an API key."},
    )
    server_port: int = field(
        default=8000,
        metadata={"about": "Port of the server; 0 takes a free one.", "limits": {"ge": 0, "le": 65535}},
    )
    server_model: str = field(
        default="", metadata={"about": "Model of the server for requests that name none."}
    )
    server_max_tokens: int = field(
        default=0,
        metadata={
            "about": "Most tokens of an answer where a request does not say; 0 is half of the context.",
            "limits": {"ge": 0},
        },
    )
    server_origins: str = field(
        default="",
        metadata={"about": "Origins of web pages that may call the server, separated by commas."},
    )
    server_hosts: str = field(
        default="",
        metadata={"about": "Further host names that the server answers to, separated by commas."},
    )
    keymap: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"about": "Own keys: the id of a binding (see `docs/keys.md`) and its keys."},
    )


FIELDS = {declared.name: declared for declared in fields(Settings)}
"""Every setting by name."""


def _validated(values: Mapping[str, object]) -> Settings:
    """Return the settings with these values in the place of defaults.

    Raises:
        pydantic.ValidationError: a value has not the type of its field, or lies outside its limits.
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
    """Settings, and what was wrong on the way to them."""

    settings: Settings
    problems: tuple[str, ...]
    """Sentences that name the file or variable, the key and the fix."""
    path: Path
    """The config file, whether it is there or not."""
    from_command_line: frozenset[str] = frozenset()
    """Names of the settings that the command line gave."""
    from_environment: frozenset[str] = frozenset()
    """Names of the settings that the environment gave and the command line did not."""
    key_folder: Path | None = None
    """Where the server's API keys are kept; None is beside the config file."""

    @property
    def key_file(self) -> Path:
        """The file of the server's API keys."""
        return (self.key_folder or self.path.parent) / "api-keys"

    def where(self, name: str) -> str:
        """Return where a setting that is not the default was given: option, variable or file."""
        if name in self.from_command_line:
            return f"--{name.replace('_', '-')}"
        return variable(name) if name in self.from_environment else str(self.path)


def weights_choice(loaded: LoadedSettings) -> WeightsChoice:
    """Return how the engine is to hold weights where there is no GPU; the command line is for every model."""
    from mlxk_tui.engine.memory import WeightsChoice

    for_all = "cpu_weights" in loaded.from_command_line
    return WeightsChoice(
        loaded.settings.cpu_weights, {} if for_all else dict(loaded.settings.model_cpu_weights)
    )


def for_demo(loaded: LoadedSettings, folder: Path) -> LoadedSettings:
    """Return the settings for a demo: colours and keys as the user likes them, and a server of its own.

    What the config file says of the server is meant for the user's models and API keys. Those of the
    demo are kept in `folder`.
    """
    near = loaded.from_command_line | loaded.from_environment
    own: dict[str, Any] = {
        name: declared.default
        for name, declared in FIELDS.items()
        if name.startswith("server_") and name not in near
    }
    return replace(loaded, settings=replace(loaded.settings, **own), key_folder=folder)


def cache_for(loaded: LoadedSettings, environ: Mapping[str, str]) -> Cache:
    """Return the cache to show.

    Sources, the first that is given: `--cache-dir`, `MLXK_CACHE_DIR`, what huggingface_hub reads
    (`HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`), the config file's `cache_dir`, the default.
    """
    from mlxk_tui.ops.cache.cache import Cache

    folder = loaded.settings.cache_dir
    near = "cache_dir" in loaded.from_command_line | loaded.from_environment
    if folder is not None and (near or not any(environ.get(name) for name in _HUB_VARIABLES)):
        # Not `Cache.at`: a folder that was named is meant as it stands, dollar signs too.
        return Cache(Path(os.path.abspath(os.path.expanduser(folder))))
    return Cache.from_environment(environ)


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """Return where the config file is looked for; `MLXK_CONFIG` names another."""
    named = (os.environ if environ is None else environ).get(f"{ENV_PREFIX}CONFIG")
    return Path(named).expanduser() if named else platformdirs.user_config_path("mlxk-tui") / "config.toml"


def load(command_line: Mapping[str, object] | None = None, path: Path | None = None) -> LoadedSettings:
    """Return the settings. A value that cannot be used is told of and its default taken instead.

    Args:
        command_line: values given there, by field name; None means not given.
        path: the config file; the usual one when left out.

    Raises:
        ConfigError: a value of the command line cannot be used.
    """
    path = path or config_path()
    stored, problems = read(path, FIELDS)
    variables = _variables(os.environ)
    given = {name: value for name, value in (command_line or {}).items() if value is not None}
    for _ in range(2 * len(FIELDS) + 1):  # each round drops at least one bad value
        faults: list[tuple[str, str]] = []
        try:
            settings = _validated({**stored, **_parsed(variables), **given})
            near = frozenset(given)
            return LoadedSettings(settings, tuple(problems), path, near, frozenset(variables) - near)
        except _NotJsonError as fault:
            faults = [(str(fault), f"it must be JSON such as {_TABLES[str(fault)]}")]
        except ValueError as error:
            faults = _faults(error)
        for name, cause in faults:
            if name in given:
                raise ConfigError(f"--{name.replace('_', '-')}: {cause}.") from None
            if variables.pop(name, None) is not None:
                used = "The config file's value is used." if name in stored else "The default is used."
                problems.append(f"{variable(name)} cannot be used: {cause}. Correct or unset it. {used}")
            else:
                fix = "Correct or remove that line. The default is used."
                problems.append(f"{path}: `{name}` cannot be used: {cause}. {fix}")
                stored.pop(name, None)
    raise ConfigError(f"{path}: the settings cannot be read.")


_TABLES = {
    "keymap": '{"models.delete": "D"}',
    "model_cpu_weights": '{"mlx-community/Qwen3-4B-4bit": "stored"}',
}
"""Settings that are tables, with an example; an environment variable gives them as JSON."""


class _NotJsonError(Exception):
    """An environment variable gives a table that is not JSON; its argument is the setting."""


def _parsed(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of environment variables, tables read as JSON."""
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
    "mapping_type": "it must be a table of names and words",
    "dict_type": "it must be a table of names and words",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "finite_number": "it must be a number",
}
"""What pydantic's codes mean to a user; its own messages name Python's types."""


def _faults(error: ValueError) -> list[tuple[str, str]]:
    """Return (setting, cause) for each fault that pydantic found.

    Raises:
        ValueError: the error is not pydantic's.
    """
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        raise error
    found = []
    for fault in error.errors():
        said = fault["msg"].replace("Input should be", "It must be")
        cause = _CAUSES.get(fault["type"]) or said[0].lower() + said[1:]
        found.append((str(fault["loc"][0]), cause))
    return found


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the values that environment variables give; an empty one gives none."""
    return {name: environ[variable(name)] for name in FIELDS if environ.get(variable(name))}


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
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
