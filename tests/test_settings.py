"""Settings: which source wins, and that a fault is a sentence and never a traceback."""

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
    weights_choice,
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_command_line_beats_environment_beats_file_beats_default(
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
def test_a_fault_in_the_file_names_file_key_and_fix(config: Path, text: str, words: tuple[str, ...]) -> None:
    config.write_text(text + "\nanimations = false\n")
    loaded = load({}, config)
    assert len(loaded.problems) == 1
    assert str(config) in loaded.problems[0]
    assert all(word in loaded.problems[0] for word in words), loaded.problems
    assert not any(word in loaded.problems[0] for word in ("<class", "codec", "pathlib"))
    assert loaded.settings.sort == "name"


def test_the_cache_is_that_of_the_nearest_source(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def root(command_line: str | None = None, **environ: str) -> str:
        loaded = load({"cache_dir": command_line}, config)
        return cache_for(loaded, {"XDG_CACHE_HOME": str(tmp_path / "xdg"), **environ}).root.name

    hub = {"HF_HUB_CACHE": "/x/hub-cache"}
    assert root() == "hub"
    config.write_text('cache_dir = "/x/of-the-file"\n')
    assert root() == "of-the-file"
    assert root(**hub) == "hub-cache"
    assert root(HUGGINGFACE_HUB_CACHE="/x/old-name") == "old-name"
    assert root(HF_HOME="/x/home") == "hub"
    assert root(HF_HOME="") == "of-the-file"
    monkeypatch.setenv("MLXK_CACHE_DIR", "/x/of-the-variable")
    assert root(**hub) == "of-the-variable"
    assert root("/x/of-the-option", **hub) == "of-the-option"


def test_the_folder_of_a_cache_is_taken_as_it_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    config.write_text('cache_dir = "~/models $HOME"\n')
    assert cache_for(load({}, config), {}).root == Path("/home/someone/models $HOME")
    monkeypatch.chdir(config.parent)
    assert cache_for(load({"cache_dir": "here"}, config), {}).root == config.parent / "here"


def test_it_is_known_where_a_setting_was_given(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('theme = "nord"\n')
    assert load({}, config).where("theme") == str(config)
    monkeypatch.setenv("MLXK_THEME", "nord")
    assert load({}, config).where("theme") == "MLXK_THEME"
    assert load({"theme": "nord"}, config).where("theme") == "--theme"


def test_one_bad_value_does_not_cost_the_good_ones(config: Path) -> None:
    config.write_text('sort = 1\ntheme = "nord"\n')
    assert load({}, config).settings.theme == "nord"


def test_bytes_that_are_not_text_and_a_folder_are_sentences(config: Path) -> None:
    config.write_bytes(b"\xff\xfe\x00")
    assert load({}, config).problems == (f"{config} is not UTF-8 text. Fix the file. Using the defaults.",)
    config.unlink()
    config.mkdir()
    assert "cannot be read" in load({}, config).problems[0]


def test_a_bad_variable_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXK_REFRESH_SECONDS", "soon")
    monkeypatch.setenv("MLXK_KEYMAP", "{")
    loaded = load({}, config)
    assert {problem.split()[0] for problem in loaded.problems} == {"MLXK_REFRESH_SECONDS", "MLXK_KEYMAP"}
    assert all(problem.endswith("Using the default.") for problem in loaded.problems)
    assert loaded.settings == Settings()


def test_a_model_s_weights_can_come_from_file_and_environment(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('cpu_weights = "stored"\n\n[model_cpu_weights]\n"Org/Model" = "float32"\n')
    choice = weights_choice(load({}, config))
    assert (choice.of("org/model").value, choice.of("another").value) == ("float32", "stored")
    monkeypatch.setenv("MLXK_MODEL_CPU_WEIGHTS", '{"another": "auto"}')
    assert weights_choice(load({}, config)).of("another").value == "auto"
    for bad in ("{", '{"another": "half"}'):
        monkeypatch.setenv("MLXK_MODEL_CPU_WEIGHTS", bad)
        assert "MLXK_MODEL_CPU_WEIGHTS is not valid" in load({}, config).problems[0]


def test_the_command_line_says_how_all_weights_are_held(config: Path) -> None:
    config.write_text('cpu_weights = "stored"\n\n[model_cpu_weights]\n"Org/Model" = "stored"\n')
    choice = weights_choice(load({"cpu_weights": "float32"}, config))
    assert (choice.of("org/model").value, choice.of("another").value) == ("float32", "float32")
    with pytest.raises(ConfigError, match=r"^--cpu-weights: it must be 'auto', 'stored' or 'float32'\.$"):
        load({"cpu_weights": "half"}, config)


def test_a_keymap_can_come_from_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXK_KEYMAP", '{"models.delete": "D"}')
    assert load({}, config).settings.keymap == {"models.delete": "D"}


def test_a_bad_value_on_the_command_line_is_refused(config: Path) -> None:
    with pytest.raises(ConfigError, match="--sort: it must be"):
        load({"sort": "colour"}, config)


def test_saving_keeps_comments_order_and_tables(config: Path) -> None:
    config.write_text('# mine\nsort = "size"  # why not\n\n[keymap]\n"models.delete" = "D"\n')
    save(config, "theme", "nord")
    text = config.read_text()
    assert text.startswith('# mine\nsort = "size"  # why not\n')
    assert load({}, config).settings == Settings(theme="nord", sort="size", keymap={"models.delete": "D"})
    assert list(config.parent.iterdir()) == [config]


def test_saving_makes_the_folder_and_follows_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles" / "mlxk.toml", tmp_path / "config" / "config.toml"
    save(real, "theme", "nord")
    link.parent.mkdir()
    link.symlink_to(real)
    save(link, "theme", "gruvbox")
    assert link.is_symlink()
    assert load({}, real).settings.theme == "gruvbox"


def test_saving_into_a_broken_file_changes_nothing(config: Path) -> None:
    config.write_text("theme = = 1\n")
    with pytest.raises(ConfigError, match="was not saved"):
        save(config, "theme", "nord")
    assert config.read_text() == "theme = = 1\n"


def test_every_setting_is_in_the_reference() -> None:
    table = reference()
    for name, declared in FIELDS.items():
        assert f"`{name}`" in table
        assert declared.metadata["about"] in table
