"""Keeps every test away from the user's cache, settings and account.

The environment is set when this file is imported, before anything can import huggingface_hub (which
reads it at import). On top of that every test gets a Hugging Face home of its own, with the sentinel
file that `MLXK2_STRICT_TEST_DELETE=1` asks for before anything may be deleted.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

SENTINEL = ".mlxk-test-cache"
"""File that marks a cache as made by the tests; the same name as in the operations that look for it."""

_ROOT_VARIABLE = "MLXK2_TEST_ROOT"
"""Set by the first process of a run; a pytest-xdist worker finds it and works below that folder."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the run in the background lets it ignore Ctrl-C, and whatever it starts as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests start hundreds of processes: where no bytecode is kept, each compiles all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_DROPPED = (
    "COLORTERM",
    "COLUMNS",
    "FORCE_COLOR",
    "HF_ENDPOINT",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_TOKEN_PATH",
    "HUGGINGFACE_ASSETS_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "LINES",
    "NO_COLOR",
    "TEXTUAL",
    "TEXTUAL_ANIMATIONS",
    "TEXTUAL_THEME",
    "TRANSFORMERS_CACHE",
)
_TOKENS = ("HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def _hub_folders_of_the_user(env: dict[str, str]) -> list[Path]:
    """Every folder that could be the user's own hub cache, as huggingface_hub would find it."""
    home = Path(os.path.expanduser("~"))
    candidates = [Path(env[name]) for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") if env.get(name)]
    candidates += [Path(env[name]) / "hub" for name in ("HF_HOME", "MLXK2_USER_HF_HOME") if env.get(name)]
    candidates.append(Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface" / "hub")
    return list(dict.fromkeys(path.expanduser().absolute() for path in candidates))


def _own_folders_of_the_user(env: dict[str, str]) -> list[Path]:
    """Where the program keeps settings and state when nothing redirects it."""
    home = Path(os.path.expanduser("~"))
    parents = [
        Path(env[name]) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME") if env.get(name)
    ]
    parents += [home / ".config", home / ".local" / "state", home / ".local" / "share"]
    parents += [home / "Library" / "Application Support", home / "Library" / "Preferences"]
    return [parent / "mlxk-tui" for parent in parents]


def _fingerprint(hubs: list[Path], folders: list[Path]) -> dict[str, int]:
    """Modification times (nanoseconds) two levels deep: cheap, and a file that comes or goes moves one."""
    times: dict[str, int] = {}
    for hub in hubs:
        pending = [(hub, 0)]
        while pending:
            folder, depth = pending.pop()
            try:
                times[str(folder)] = folder.stat().st_mtime_ns
                if depth < 2:
                    with os.scandir(folder) as entries:
                        pending += [
                            (Path(e.path), depth + 1) for e in entries if e.is_dir(follow_symlinks=False)
                        ]
            except OSError:
                continue
    for folder in folders:
        if folder.exists():
            times[str(folder)] = folder.stat().st_mtime_ns
    return times


def _isolate() -> tuple[Path, bool]:
    """Redirect everything that names a place of the user's; return this process's root and if it owns it."""
    env = os.environ
    given = env.get(_ROOT_VARIABLE)
    if given is None:
        root = Path(tempfile.mkdtemp(prefix="mlxk-tests-"))
        env[_ROOT_VARIABLE] = str(root)
        if env.get("HF_HOME"):
            env.setdefault("MLXK2_USER_HF_HOME", env["HF_HOME"])
    else:
        root = Path(tempfile.mkdtemp(prefix="worker-", dir=given))
    dropped = [*_DROPPED, *(() if env.get("MLXK2_LIVE_PUSH") else _TOKENS)]
    for name in [*dropped, *(name for name in env if name.startswith("MLXK_"))]:
        env.pop(name, None)
    home = root / "home"
    for name, folder in (
        ("HOME", home),
        ("XDG_CACHE_HOME", home / "cache"),
        ("XDG_CONFIG_HOME", home / "config"),
        ("XDG_DATA_HOME", home / "data"),
        ("XDG_STATE_HOME", home / "state"),
        ("HF_HOME", home / "huggingface"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        env[name] = str(folder)
    # One trial of the matrix library for all homes and processes of the run.
    env["MLXK_BLAS_TRIALS"] = str(Path(given or root) / "blas")
    # So with the trials of batching: the tests of panes and server load the same few models.
    env["MLXK_BATCHING"] = str(Path(given or root) / "batching")
    env["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nothing listens there: no test asks the real hub
    env["HF_HUB_DISABLE_TELEMETRY"] = "1"
    env["MLXK2_STRICT_TEST_DELETE"] = "1"
    _mark(home / "huggingface")
    return root, given is None


def _mark(hf_home: Path) -> None:
    """Make the hub folder of `hf_home` and put the sentinel into both."""
    hub = hf_home / "hub"
    hub.mkdir(parents=True, exist_ok=True)
    for folder in (hf_home, hub):
        (folder / SENTINEL).write_text("Made by the tests of mlxk-tui; everything here may be deleted.\n")


_ENVIRONMENT_BEFORE = dict(os.environ)
_HUBS = _hub_folders_of_the_user(_ENVIRONMENT_BEFORE)
_FOLDERS = _own_folders_of_the_user(_ENVIRONMENT_BEFORE)
_ROOT, _OWNS_ROOT = _isolate()

# An app is 100,000 objects, each made in one go: with Python's own threshold a third of the time of the tests
# of the panes is spent on looking for garbage among them.
gc.set_threshold(20_000, 10, 10)

import hypothesis  # noqa: E402 - nothing may be imported before the environment is set
import pytest  # noqa: E402 - as above

from mlxk_tui.ops.cache.cache import Cache  # noqa: E402 - as above

# Nothing here is a measurement: a loaded machine takes the time it takes.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

_BEFORE = _fingerprint(_HUBS, _FOLDERS) if _OWNS_ROOT else {}


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return names of folders; `mktemp` would look through all that there are, for every test."""
    folder = tmp_path_factory.mktemp("hf")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def hf_home(_homes: Iterator[Path]) -> Iterator[Path]:
    """Give this test a Hugging Face home of its own, empty but for the sentinel; `HF_HOME` names it."""
    home = next(_homes)
    _mark(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(home))
        yield home


@pytest.fixture
def hub(hf_home: Path) -> Path:
    """Return the hub folder (the one that holds `models--*`) of this test."""
    return hf_home / "hub"


@pytest.fixture
def cache(hub: Path) -> Cache:
    """Return this test's cache."""
    return Cache(hub)


@pytest.fixture
def user_hf_home() -> Path:
    """Return the user's own Hugging Face home, to be read only, or skip: for opt-in live tests."""
    given = os.environ.get("MLXK2_USER_HF_HOME")
    if not given:
        pytest.skip("set HF_HOME or MLXK2_USER_HF_HOME to your own Hugging Face home")
    home = Path(given).expanduser().absolute()
    if not (home / "hub").is_dir():
        pytest.skip(f"there is no hub folder in {home}")
    return home


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take files of the panes and others in turns: those keep a core busy, many of these wait.

    No file that takes long begins last, where it would be waited for alone.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    panes = [path for path in files if path.parent.name == "panes"]
    others = [path for path in files if path.parent.name != "panes"]
    ordered = [path for pair in zip_longest(panes, others) for path in pair if path is not None]
    items[:] = [item for path in ordered for item in files[path]]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when something in the user's own cache or settings changed while it ran."""
    if not _OWNS_ROOT:
        return
    after = _fingerprint(_HUBS, _FOLDERS)
    changed = sorted(path for path in _BEFORE.keys() | after.keys() if _BEFORE.get(path) != after.get(path))
    if changed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line("")
            reporter.write_line(
                "The user's own files changed while the tests ran (by them, or by you?):", red=True
            )
            for path in changed[:20]:
                reporter.write_line(f"  {path}", red=True)


def pytest_unconfigure() -> None:
    """Remove what the run made."""
    if _OWNS_ROOT:
        shutil.rmtree(_ROOT, ignore_errors=True)
