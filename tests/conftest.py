"""Isolates all tests from the user's cache, settings and account.

The environment is set when this file is imported, before anything imports huggingface_hub (which reads it
at import). In addition, every test gets its own Hugging Face home, with the sentinel file that
`MLXK2_STRICT_TEST_DELETE=1` requires for deletions.
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
"""File that marks a cache as created by the tests; the operations check for it."""

_ROOT_VARIABLE = "MLXK2_TEST_ROOT"
"""Set by the first process of a run, so that pytest-xdist workers use subfolders of its folder."""

# A shell makes background jobs ignore Ctrl-C, and nohup a hangup; child processes inherit that.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# The tests start hundreds of processes: without bytecode, each would compile all its imports.
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
    """Return every folder that huggingface_hub might use as the user's hub cache."""
    home = Path(os.path.expanduser("~"))
    candidates = [Path(env[name]) for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") if env.get(name)]
    candidates += [Path(env[name]) / "hub" for name in ("HF_HOME", "MLXK2_USER_HF_HOME") if env.get(name)]
    candidates.append(Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface" / "hub")
    return list(dict.fromkeys(path.expanduser().absolute() for path in candidates))


def _app_folders_of_the_user(env: dict[str, str]) -> list[Path]:
    """Return the default folders of the program's settings and state."""
    home = Path(os.path.expanduser("~"))
    parents = [
        Path(env[name]) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME") if env.get(name)
    ]
    parents += [home / ".config", home / ".local" / "state", home / ".local" / "share"]
    parents += [home / "Library" / "Application Support", home / "Library" / "Preferences"]
    return [parent / "mlxk-tui" for parent in parents]


def _fingerprint(hubs: list[Path], folders: list[Path]) -> dict[str, int]:
    """Return modification times (nanoseconds) two levels deep; they change if files come or go."""
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
    """Redirect all of the user's folders; return this process's root and whether it owns it."""
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
    # Try the BLAS library once for all homes and processes of the run.
    env["MLXK_BLAS_TRIALS"] = str(Path(given or root) / "blas")
    # The same for batching: the tests of panes and server load the same few models.
    env["MLXK_BATCHING"] = str(Path(given or root) / "batching")
    env["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nothing listens there: tests cannot use the real hub
    env["HF_HUB_DISABLE_TELEMETRY"] = "1"
    env["MLXK2_STRICT_TEST_DELETE"] = "1"
    _mark(home / "huggingface")
    return root, given is None


def _mark(hf_home: Path) -> None:
    """Create the hub folder of `hf_home` and the sentinel in both."""
    hub = hf_home / "hub"
    hub.mkdir(parents=True, exist_ok=True)
    for folder in (hf_home, hub):
        (folder / SENTINEL).write_text("Created by the tests of mlxk-tui; everything here may be deleted.\n")


_ENVIRONMENT_BEFORE = dict(os.environ)
_HUBS = _hub_folders_of_the_user(_ENVIRONMENT_BEFORE)
_FOLDERS = _app_folders_of_the_user(_ENVIRONMENT_BEFORE)
_ROOT, _OWNS_ROOT = _isolate()

# An app has 100,000 objects, created at once: with Python's default threshold, the tests of the panes spend a
# third of their time in garbage collection.
gc.set_threshold(20_000, 10, 10)

import hypothesis  # noqa: E402 - the environment must be set first
import pytest  # noqa: E402 - as above

from mlxk_tui.ops.cache.cache import Cache  # noqa: E402 - as above

# No test measures time, so that a busy machine causes no failures.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

_BEFORE = _fingerprint(_HUBS, _FOLDERS) if _OWNS_ROOT else {}


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return an iterator over names of folders; `mktemp` would list all existing ones for every test."""
    folder = tmp_path_factory.mktemp("hf")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def hf_home(_homes: Iterator[Path]) -> Iterator[Path]:
    """Set `HF_HOME` to this test's own Hugging Face home, which only contains the sentinel."""
    home = next(_homes)
    _mark(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(home))
        yield home


@pytest.fixture
def hub(hf_home: Path) -> Path:
    """Return this test's hub folder, which contains `models--*`."""
    return hf_home / "hub"


@pytest.fixture
def cache(hub: Path) -> Cache:
    """Return this test's cache."""
    return Cache(hub)


@pytest.fixture
def user_hf_home() -> Path:
    """Return the user's own Hugging Face home, for opt-in live tests that only read it; skip if not set."""
    given = os.environ.get("MLXK2_USER_HF_HOME")
    if not given:
        pytest.skip("set HF_HOME or MLXK2_USER_HF_HOME to your own Hugging Face home")
    home = Path(given).expanduser().absolute()
    if not (home / "hub").is_dir():
        pytest.skip(f"no hub folder in {home}")
    return home


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Alternate between the files of the UI, which keep a core busy, and other files, which often wait.

    This also keeps a slow file from starting last, when it would run alone.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    ui = [path for path in files if path.parent.name == "ui"]
    others = [path for path in files if path.parent.name != "ui"]
    ordered = [path for pair in zip_longest(ui, others) for path in pair if path is not None]
    items[:] = [item for path in ordered for item in files[path]]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if the user's own cache or settings changed meanwhile."""
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
    """Remove the files of the run."""
    if _OWNS_ROOT:
        shutil.rmtree(_ROOT, ignore_errors=True)
