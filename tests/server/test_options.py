"""The options of a server: what a person types becomes a value, or a sentence about what is wrong."""

from __future__ import annotations

import pytest

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.server.options import ServerOptions, parse_host, parse_origins, parse_port
from mlxk_tui.settings import Settings, server_options


@pytest.mark.parametrize(
    ("text", "host"),
    [(" 127.0.0.1 ", "127.0.0.1"), ("::1", "::1"), ("[::]", "[::]"), ("box.local", "box.local")],
)
def test_a_host_is_taken_without_blanks_around_it(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize("text", ["", "  ", "a b", "http://127.0.0.1", "host/path", "a\x1bb", "a" * 254])
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(OpError) as caught:
        parse_host(text)
    assert caught.value.type is ErrorType.VALIDATION_ERROR


@pytest.mark.parametrize(("value", "port"), [("0", 0), (" 8000 ", 8000), (65535, 65535)])
def test_a_port_is_a_number_in_its_range(value: str | int, port: int) -> None:
    assert parse_port(value) == port


@pytest.mark.parametrize("value", ["", "http", "8000.5", "-1", "65536", 70_000, -1])
def test_what_is_no_port_is_refused(value: str | int) -> None:
    with pytest.raises(OpError) as caught:
        parse_port(value)
    assert caught.value.type is ErrorType.VALIDATION_ERROR


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://a.example, http://localhost:3000/", ("https://a.example", "http://localhost:3000")),
        ("https://a.example http://b.example", ("https://a.example", "http://b.example")),
    ],
)
def test_origins_are_separated_by_commas_or_blanks(text: str, origins: tuple[str, ...]) -> None:
    assert parse_origins(text) == origins


@pytest.mark.parametrize(
    "text", ["example.org", "https://", "https://a.example/path", "://a", "https://a\x1b"]
)
def test_what_is_no_origin_is_refused_and_shown_safely(text: str) -> None:
    with pytest.raises(OpError) as caught:
        parse_origins(f"https://good.example {text}")
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    assert "\x1b" not in caught.value.message


def test_options_come_from_the_settings_and_before_them_from_the_command_line() -> None:
    settings = Settings(
        server_host="0.0.0.0",
        server_port=9000,
        server_model="org/kept",
        server_max_tokens=100,
        server_origins="https://a.example, https://b.example",
        server_hosts="box",
    )
    kept = server_options(settings)
    assert kept == ServerOptions(
        host="0.0.0.0",
        port=9000,
        model="org/kept",
        max_tokens=100,
        origins=("https://a.example", "https://b.example"),
        hosts=("box",),
    )
    given = {"host": None, "port": 0, "model": "org/given", "origins": ("*",), "force": True}
    options = server_options(settings, {**given, "max_queue": None})
    assert (options.host, options.port, options.model, options.force) == ("0.0.0.0", 0, "org/given", True)
    assert options.origins == ("https://a.example", "https://b.example", "*")
    assert (options.hosts, options.max_queue) == (("box",), ServerOptions().max_queue)


def test_what_is_not_set_is_the_default_of_the_server() -> None:
    assert server_options(Settings()) == ServerOptions()
