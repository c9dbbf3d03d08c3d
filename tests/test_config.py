"""config.toml: every key known, every mistake told at once, no secret shown."""

import re
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway import config
from gateway.errors import ConfigError

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"
SECTIONS = {
    "server": config.Server,
    "store": config.Store,
    "otlp": config.Otlp,
    "keys": config.Key,
    "upstreams": config.Upstream,
    "prices": config.Price,
}


def mistakes(text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "config.toml", env or {})
    return caught.value.mistakes


def test_the_example_is_loaded_and_shows_the_defaults() -> None:
    settings = config.load(EXAMPLE, {"TEAM_A_KEY": "key-a", "OPENAI_API_KEY": "sk-secret"})
    assert settings.server == config.Server()
    assert settings.store == config.Store()
    assert settings.keys[0].key.get_secret_value() == "key-a"
    openai, echo = settings.upstreams
    defaults = config.Upstream(name="x", base_url="http://x")
    for name in ("kind", "timeout_s", "idle_timeout_s", "connect_timeout_s", "inject_usage"):
        assert getattr(openai, name) == getattr(defaults, name)
    assert echo.models == ("echo",)
    assert settings.prices["gpt-4o-mini"].completion == Decimal("0.60")


@pytest.mark.parametrize("section", SECTIONS)
def test_the_example_names_every_key_with_a_comment(section: str) -> None:
    text = EXAMPLE.read_text()
    start = re.search(rf"^\[+{section}[.\]]", text, re.MULTILINE)
    assert start
    model: type[BaseModel] = SECTIONS[section]
    for key in model.model_fields:
        line = re.search(rf"^(# )?{key} = .*$", text[start.start() :], re.MULTILINE)
        assert line, f"{section}.{key} is not in {EXAMPLE.name}"
        assert "#" in line[0].removeprefix("# ") or f"{section}.{key}" in {"upstreams.base_url", "upstreams.api_key"}


def test_sections_are_all_there_is() -> None:
    assert set(config.Settings.model_fields) == set(SECTIONS) == set(tomllib.loads(EXAMPLE.read_text()))


def test_all_mistakes_come_at_once() -> None:
    text = """
[server]
prot = 80
workers = 0
max_body_mb = "big"
[stroe]
path = "x"
[store]
path = "nowhere/x.db"
[[keys]]
name = "a"
key = "env:MISSING"
environment = "staging"
[[keys]]
name = "a"
key = "k"
[[upstreams]]
name = "with/slash"
base_url = "http://x"
timout_s = 1
models = "gpt-4o"
[[upstreams]]
name = "no-address"
[prices.m]
prompt = "1"
"""
    found = "\n".join(mistakes(text))
    assert len(found.splitlines()) == 14
    for expected in (
        "config.toml: server.prot: unknown key; did you mean port?",
        "config.toml: server.workers: must be greater than or equal to 1",
        "config.toml: server.max_body_mb: must be a number",
        "config.toml: stroe: unknown key; did you mean store?",
        'config.toml: keys[0] ("a").key: the environment variable MISSING is not set',
        "config.toml: keys[0] (\"a\").environment: must be 'prod' or 'test'",
        'config.toml: upstreams[0] ("with/slash").name: must have no slash',
        'config.toml: upstreams[0] ("with/slash").timout_s: unknown key; did you mean timeout_s?',
        'config.toml: upstreams[0] ("with/slash").models: must be a list',
        'config.toml: upstreams[1] ("no-address").base_url: is required',
        "config.toml: keys: the name 'a' is used twice",
        "config.toml: store.path: there is no folder nowhere",
        "config.toml: prices.m.prompt: must be a number",
        "config.toml: prices.m.completion: is required",
    ):
        assert expected in found


def test_names_and_keys_are_unique() -> None:
    text = """
[[keys]]
name = "a"
key = "same"
[[keys]]
name = "a"
key = "same"
[[upstreams]]
name = "u"
kind = "echo"
[[upstreams]]
name = "u"
kind = "echo"
"""
    assert mistakes(text) == [
        "config.toml: keys: the name 'a' is used twice",
        "config.toml: keys: a and a have the same key",
        "config.toml: upstreams: the name 'u' is used twice",
    ]


def test_what_is_no_toml_is_told_with_its_place() -> None:
    (text,) = mistakes("[server\n")
    assert text.startswith("config.toml: not valid TOML:")
    assert "line 1" in text


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        config.load(Path("nowhere.toml"), {})


def test_without_a_file_there_is_echo_and_openai_where_its_key_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [upstream.name for upstream in config.load(None, {}).upstreams] == ["echo"]
    openai, echo = config.load(None, {"OPENAI_API_KEY": "sk-1"}).upstreams
    assert (openai.name, echo.name) == ("openai", "echo")
    assert openai.api_key is not None and openai.api_key.get_secret_value() == "sk-1"


def test_config_toml_in_the_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.toml").write_text("[server]\nport = 1234\n")
    assert config.load(None, {}).server.port == 1234


def test_flags_win_and_are_checked() -> None:
    settings = config.parse("[server]\nport = 1234\nworkers = 3\n", "f", {})
    assert config.with_server(settings, {"port": 5}).server == config.Server(port=5, workers=3)
    with pytest.raises(ConfigError, match="--port: must be less than or equal to 65535"):
        config.with_server(settings, {"port": 70000})


def test_no_secret_is_shown() -> None:
    text = """
[[keys]]
name = "a"
key = "canary-1"
[[upstreams]]
name = "u"
base_url = "https://user:canary-2@host/v1"
api_key = "env:K"
headers = { "X-Token" = "canary-3", "X-Other" = "env:K" }
proxy = "http://user:canary-5@proxy:1"
"""
    settings = config.parse(text, "f", {"K": "canary-4"})
    shown = config.resolved(settings)
    assert "canary" not in shown
    assert "canary" not in repr(settings)
    assert 'name = "u"' in shown


def test_what_is_shown_is_toml_that_means_the_same() -> None:
    settings = config.load(EXAMPLE, {"TEAM_A_KEY": "key-a", "OPENAI_API_KEY": "sk-secret"})
    again = config.parse(config.resolved(settings), "again", {})
    assert again.server == settings.server
    assert again.store == settings.store
    assert again.prices == settings.prices
    assert [upstream.models for upstream in again.upstreams] == [upstream.models for upstream in settings.upstreams]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('[server]\nport = "80"', "server.port: must be a whole number"),
        ("[server]\nhost = 5", "server.host: must be text in quotes"),
        ("[server]\nmax_connections = 0", "server.max_connections: must be greater than or equal to 1"),
        ("[server]\nmax_connections = 1.5", "server.max_connections: must be a"),
        ("[server]\nhead_timeout_s = 0", "server.head_timeout_s: must be greater than 0"),
        ("[server]\nbody_timeout_s = inf", "server.body_timeout_s: must be a finite number"),
        ('[server]\nwrite_timeout_s = "1"', "server.write_timeout_s: must be a number"),
        ('server = "x"', "server: must be a table"),
        ('[store]\npath = ""', "store.path: must be the name of a file"),
        ('[store]\npath = ":memory:"', "store.path: must be the name of a file"),
        ('[store]\npath = "/"', "store.path: must be the name of a file"),
        ("[store]\npath = 5", "store.path: must be text in quotes"),
        ('[store]\nsynchronous = "off"', "store.synchronous: must be 'normal' or 'full'"),
        ('[[keys]]\nname = "a"\nkey = ""', 'keys[0] ("a").key: must not be empty'),
        ("upstreams = []", "upstreams: there must be one at least"),
        ('[[upstreams]]\nname="u"\nbase_url="http://h/v1?x=y"', 'upstreams[0] ("u").base_url: must begin with http'),
        (
            '[[upstreams]]\nname="u"\nbase_url="http://h"\nca_file="nope.pem"',
            "ca_file: nope.pem cannot be read: No such",
        ),
        ('[[upstreams]]\nname="u"\nbase_url="http://h"\nheaders={"a b"="x"}', "is no name of a header"),
        ('[[upstreams]]\nname="u"\nbase_url="http://h"\nheaders={a="x\\ny"}', "headers.a: must be one line"),
        ("[prices.m]\nprompt = -1\ncompletion = 1", "prices.m.prompt: must be greater than or equal to 0"),
    ],
)
def test_a_mistake_is_told_in_the_files_own_words(line: str, expected: str) -> None:
    (found,) = mistakes(line)
    assert found.startswith("config.toml: ")
    assert expected in found


def test_a_ca_file_must_hold_certificates(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    (found,) = mistakes(f'[[upstreams]]\nname="u"\nbase_url="http://h"\nca_file="{file}"')
    assert "holds no certificates in PEM form" in found


def test_one_key_under_two_names_is_told_also_where_it_comes_from_the_environment() -> None:
    text = '[[keys]]\nname="a"\nkey="env:A"\n[[keys]]\nname="b"\nkey="same"'
    assert mistakes(text, {"A": "same"}) == ["config.toml: keys: a and b have the same key"]


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xef\xbb\xbf[server]\nport = 1\n")
    assert config.load(file, {}).server.port == 1
