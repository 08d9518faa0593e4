"""Settings: precedence of sources, and errors as messages without traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxk_tui.config_file import ConfigError, save
from mlxk_tui.settings import (
    FIELDS,
    Settings,
    cache_for,
    load,
    reference,
    weights_policy,
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_command_line_overrides_environment_overrides_file_overrides_default(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load({}, config).settings.theme == "mlxk-dark"
    config.write_text('theme = "nord"\nsort = "size"\n')
    assert load({}, config).settings.theme == "nord"
    monkeypatch.setenv("MLXK_THEME", "mlxk-light")
    assert load({}, config).settings.theme == "mlxk-light"
    assert load({"theme": "ansi-dark"}, config).settings.theme == "ansi-dark"
    assert load({"theme": None}, config).settings.sort == "size"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("theme = = 1", ("is not valid TOML", "line 1")),
        ('sort = "colour"', ("`sort` is not valid", "'name'", "Fix or remove")),
        ("refresh_seconds = -1", ("`refresh_seconds` is not valid", "greater than or equal to 0")),
        ("refresh_secnds = 1", ("unknown setting `refresh_secnds`", "Did you mean `refresh_seconds`?")),
        ("keymap = 3", ("`keymap` is not valid: it must be a table", "Using the default.")),
        ("cache_dir = 3", ("`cache_dir` is not valid: it must be a folder", "Using the default.")),
        ("filter = 3", ("`filter` is not valid: it must be text", "Using the default.")),
    ],
)
def test_error_in_the_file_names_setting_and_fix(config: Path, text: str, words: tuple[str, ...]) -> None:
    config.write_text(text + "\nanimations = false\n")
    loaded = load({}, config)
    assert len(loaded.problems) == 1
    assert str(config) in loaded.problems[0]
    assert all(word in loaded.problems[0] for word in words), loaded.problems
    assert not any(word in loaded.problems[0] for word in ("<class", "codec", "pathlib"))
    assert loaded.settings.sort == "name"


def test_cache_folder_has_the_documented_precedence(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def root(command_line: str | None = None, **environ: str) -> str:
        loaded = load({"cache_dir": command_line}, config)
        return cache_for(loaded, {"XDG_CACHE_HOME": str(tmp_path / "xdg"), **environ}).root.name

    hub = {"HF_HUB_CACHE": "/x/hub-cache"}
    assert root() == "hub"
    config.write_text('cache_dir = "/x/from-file"\n')
    assert root() == "from-file"
    assert root(**hub) == "hub-cache"
    assert root(HUGGINGFACE_HUB_CACHE="/x/old-name") == "old-name"
    assert root(HF_HOME="/x/home") == "hub"
    assert root(HF_HOME="") == "from-file"
    monkeypatch.setenv("MLXK_CACHE_DIR", "/x/from-variable")
    assert root(**hub) == "from-variable"
    assert root("/x/from-option", **hub) == "from-option"


def test_cache_folder_expands_only_the_home_directory(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    config.write_text('cache_dir = "~/models $HOME"\n')
    assert cache_for(load({}, config), {}).root == Path("/home/someone/models $HOME")
    monkeypatch.chdir(config.parent)
    assert cache_for(load({"cache_dir": "here"}, config), {}).root == config.parent / "here"


def test_source_of_a_setting_is_known(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('theme = "nord"\n')
    assert load({}, config).where("theme") == str(config)
    monkeypatch.setenv("MLXK_THEME", "nord")
    assert load({}, config).where("theme") == "MLXK_THEME"
    assert load({"theme": "nord"}, config).where("theme") == "--theme"


def test_invalid_value_does_not_affect_the_others(config: Path) -> None:
    config.write_text('sort = 1\ntheme = "nord"\n')
    assert load({}, config).settings.theme == "nord"


def test_binary_file_and_folder_are_reported(config: Path) -> None:
    config.write_bytes(b"\xff\xfe\x00")
    assert load({}, config).problems == (f"{config} is not UTF-8 text. Fix the file. Using the defaults.",)
    config.unlink()
    config.mkdir()
    assert "cannot be read" in load({}, config).problems[0]


def test_invalid_variable_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXK_REFRESH_SECONDS", "soon")
    monkeypatch.setenv("MLXK_KEYMAP", "{")
    loaded = load({}, config)
    assert {problem.split()[0] for problem in loaded.problems} == {"MLXK_REFRESH_SECONDS", "MLXK_KEYMAP"}
    assert all(problem.endswith("Using the default.") for problem in loaded.problems)
    assert loaded.settings == Settings()


def test_weights_of_a_model_are_set_by_file_and_environment(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('cpu_weights = "stored"\n\n[model_cpu_weights]\n"Org/Model" = "float32"\n')
    choice = weights_policy(load({}, config))
    assert (choice.for_model("org/model").value, choice.for_model("another").value) == ("float32", "stored")
    monkeypatch.setenv("MLXK_MODEL_CPU_WEIGHTS", '{"another": "auto"}')
    assert weights_policy(load({}, config)).for_model("another").value == "auto"
    for bad in ("{", '{"another": "half"}'):
        monkeypatch.setenv("MLXK_MODEL_CPU_WEIGHTS", bad)
        assert "MLXK_MODEL_CPU_WEIGHTS is not valid" in load({}, config).problems[0]


def test_command_line_sets_the_weights_of_all_models(config: Path) -> None:
    config.write_text('cpu_weights = "stored"\n\n[model_cpu_weights]\n"Org/Model" = "stored"\n')
    choice = weights_policy(load({"cpu_weights": "float32"}, config))
    assert (choice.for_model("org/model").value, choice.for_model("another").value) == ("float32", "float32")
    with pytest.raises(ConfigError, match=r"^--cpu-weights: it must be 'auto', 'stored' or 'float32'\.$"):
        load({"cpu_weights": "half"}, config)


def test_keymap_can_be_set_in_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXK_KEYMAP", '{"models.delete": "D"}')
    assert load({}, config).settings.keymap == {"models.delete": "D"}


def test_invalid_value_on_the_command_line_is_rejected(config: Path) -> None:
    with pytest.raises(ConfigError, match="--sort: it must be"):
        load({"sort": "colour"}, config)


def test_saving_keeps_comments_order_and_tables(config: Path) -> None:
    config.write_text('# mine\nsort = "size"  # why not\n\n[keymap]\n"models.delete" = "D"\n')
    save(config, "theme", "nord")
    text = config.read_text()
    assert text.startswith('# mine\nsort = "size"  # why not\n')
    assert load({}, config).settings == Settings(theme="nord", sort="size", keymap={"models.delete": "D"})
    assert list(config.parent.iterdir()) == [config]


def test_saving_creates_the_folder_and_follows_links(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles" / "mlxk.toml", tmp_path / "config" / "config.toml"
    save(real, "theme", "nord")
    link.parent.mkdir()
    link.symlink_to(real)
    save(link, "theme", "gruvbox")
    assert link.is_symlink()
    assert load({}, real).settings.theme == "gruvbox"


def test_saving_to_an_invalid_file_changes_nothing(config: Path) -> None:
    config.write_text("theme = = 1\n")
    with pytest.raises(ConfigError, match="was not saved"):
        save(config, "theme", "nord")
    assert config.read_text() == "theme = = 1\n"


def test_reference_lists_every_setting() -> None:
    table = reference()
    for name, declared in FIELDS.items():
        assert f"`{name}`" in table
        assert declared.metadata["about"] in table
