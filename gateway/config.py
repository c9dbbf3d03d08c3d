"""config.toml → settings. Every mistake is found in one go, each with its key and what is allowed."""

import difflib
import os
import re
import ssl
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from gateway.core import retention
from gateway.errors import ConfigError

MASK = "********"
DEFAULT_FILE = Path("config.toml")

# What OpenAI serves, by name. Not every model: `echo` and other upstreams have names of their own.
_OPENAI_MODELS = (
    "gpt-*", "chatgpt-*", "o[0-9]*", "codex-*", "computer-use-*", "text-*", "omni-*", "dall-e-*", "sora-*", "tts-*",
    "whisper-*", "babbage-*", "davinci-*", "ft:*",
)  # fmt: skip


def _resolved(value: object, info: ValidationInfo) -> object:
    """`env:NAME` reads the environment."""
    if isinstance(value, str) and value.startswith("env:"):
        name = value.removeprefix("env:")
        found = (info.context or {}).get("env", {}).get(name, "")
        if not found:
            # Whoever takes it for a prefix of the key itself is not shown the key.
            which = name if re.fullmatch(r"[A-Z_][A-Z0-9_]*", name) else "that it names"
            raise ValueError(f"the environment variable {which} is not set")
        return found
    return value


def _age(text: str) -> str:
    retention.age(text)
    return text


def _age_or_never(text: str) -> str:
    return text if text == NEVER else _age(text)


def _size(text: str) -> str:
    retention.size(text)
    return text


def _plain_number(value: object) -> object:
    # The file's numbers are read as Decimal, so that prices are exact.
    if isinstance(value, (bool, str)):
        raise ValueError("must be a number")
    return float(value) if isinstance(value, Decimal) else value


def _exact_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise ValueError("must be a number")
    return value


def _upstream_name(value: str) -> str:
    if "/" in value or any(sign.isspace() for sign in value):
        raise ValueError("must have no slash and no space: models are called NAME/model")
    return value


def _http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?", value):
        raise ValueError("must begin with http:// or https://, name a host, and have no query")
    return value


def _database_file(value: object) -> object:
    if isinstance(value, str):
        if not Path(value).name or value.startswith((":", "file:")) or Path(value).is_dir():
            raise ValueError("must be the name of a file")
        if not Path(value).absolute().parent.is_dir():
            raise ValueError(f"there is no folder {Path(value).parent}")
    return value


def _certificates(value: object) -> object:
    if isinstance(value, str):
        try:
            ssl.create_default_context(cafile=value)
        except ssl.SSLError:
            raise ValueError(f"{value} holds no certificates in PEM form") from None
        except OSError as error:
            raise ValueError(f"{value} cannot be read: {error.strerror}") from None
    return value


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", value):
        raise ValueError("is no name of a header")
    return value


def _header_value(value: SecretStr) -> SecretStr:
    if re.search(r"[\r\n\0]", value.get_secret_value()):
        raise ValueError("must be one line")
    return value


NEVER = "never"

# What the store's whole numbers can hold.
_BUDGET_AT_MOST = 9_000_000

Text = Annotated[str, Field(strict=True, min_length=1)]
HttpUrl = Annotated[Text, AfterValidator(_http_url)]
Secret = Annotated[SecretStr, BeforeValidator(_resolved), Field(min_length=1)]
HeaderValue = Annotated[Secret, AfterValidator(_header_value)]
Seconds = Annotated[float, BeforeValidator(_plain_number), Field(gt=0, allow_inf_nan=False)]
Number = Annotated[float, BeforeValidator(_plain_number), Field(gt=0, allow_inf_nan=False)]
Usd = Annotated[Decimal, BeforeValidator(_exact_number), Field(ge=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(Section):
    host: Text = "127.0.0.1"
    port: Annotated[Whole, Field(ge=0, le=65535)] = 8080
    workers: Annotated[Whole, Field(ge=1, le=256)] = 1
    max_body_mb: Number = 32
    drain_s: Annotated[float, BeforeValidator(_plain_number), Field(ge=0, allow_inf_nan=False)] = 30
    max_connections: Annotated[Whole, Field(ge=1)] = 10_000
    head_timeout_s: Seconds = 20
    body_timeout_s: Seconds = 300
    write_timeout_s: Seconds = 3600


class Store(Section):
    path: Annotated[Path, BeforeValidator(_database_file)] = Path("gateway.db")
    commit_wait_ms: Annotated[float, BeforeValidator(_plain_number), Field(ge=0, allow_inf_nan=False)] = 250
    synchronous: Literal["normal", "full"] = "normal"
    max_content_mb: Number = 8
    queue_mb: Number = 64
    compress_after: Annotated[str, AfterValidator(_age_or_never)] = "1d"
    prune_older_than: Annotated[str, AfterValidator(_age)] | None = None
    prune_max_size: Annotated[str, AfterValidator(_size)] | None = None


class Key(Section):
    name: Text
    key: Secret
    organization_id: Text = "default"
    environment: Literal["prod", "test"] = "prod"
    rate_limit: Annotated[Whole, Field(ge=1)] | None = None
    max_concurrent: Annotated[Whole, Field(ge=1)] | None = None
    budget_usd: Annotated[Usd, Field(le=_BUDGET_AT_MOST)] | None = None
    budget_period: Literal["day", "week", "month"] = "month"


class Upstream(Section):
    name: Annotated[Text, AfterValidator(_upstream_name)]
    kind: Literal["openai", "echo"] = "openai"
    base_url: Annotated[HttpUrl | None, Field(repr=False)] = None
    api_key: Secret | None = None
    models: tuple[Text, ...] | None = None
    timeout_s: Seconds = 600
    idle_timeout_s: Seconds = 120
    connect_timeout_s: Seconds = 5
    inject_usage: Annotated[bool, Field(strict=True)] = True
    headers: dict[Annotated[str, AfterValidator(_header_name)], HeaderValue] = {}
    proxy: Annotated[HttpUrl | None, Field(repr=False)] = None
    ca_file: Annotated[Path, BeforeValidator(_certificates)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _echo_serves_echo(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kind") == "echo" and "models" not in value:
            return {**value, "models": ["echo"]}
        return value


class Price(Section):
    prompt: Usd
    completion: Usd
    cached_prompt: Usd | None = None
    cache_creation: Usd | None = None


class Otlp(Section):
    endpoint: Annotated[HttpUrl | None, Field(repr=False)] = None
    headers: dict[Annotated[str, AfterValidator(_header_name)], HeaderValue] = {}


class Settings(Section):
    server: Server = Server()
    store: Store = Store()
    otlp: Otlp = Otlp()
    keys: tuple[Key, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    prices: dict[str, Price] = {}


def found(path: Path | None) -> Path | None:
    """The file that is meant: without one `./config.toml` if it is there; None for the built-in defaults."""
    return DEFAULT_FILE if path is None and DEFAULT_FILE.is_file() else path


def load(path: Path | None, env: Mapping[str, str] | None = None) -> Settings:
    """Settings from a file; without one from `./config.toml` if it is there, else the built-in defaults.

    Raises ConfigError with every mistake.
    """
    env = os.environ if env is None else env
    path = found(path)
    if path is None:
        return parse("", str(DEFAULT_FILE), env)
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    return parse(text, str(path), env)


def parse(text: str, file: str, env: Mapping[str, str]) -> Settings:
    """Settings from a file's text; `file` is how mistakes name it. Raises ConfigError."""
    try:
        raw = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{file}: not valid TOML: {error}"]) from error
    raw.setdefault("upstreams", _default_upstreams(env))
    mistakes = _contradictions(raw, env)
    try:
        settings = Settings.model_validate(raw, context={"env": env})
    except ValidationError as error:
        mistakes = _explained(error, raw) + mistakes
    if mistakes:
        raise ConfigError([f"{file}: {mistake}" for mistake in mistakes])
    return settings


def with_server(settings: Settings, flags: Mapping[str, Any]) -> Settings:
    """The settings with some of `[server]` replaced by the command line. Raises ConfigError."""
    try:
        server = Server.model_validate({**settings.server.model_dump(), **flags})
    except ValidationError as error:
        raise ConfigError([f"--{mistake}" for mistake in _explained(error, {})]) from None
    return settings.model_copy(update={"server": server})


def resolved(settings: Settings) -> str:
    """The settings as TOML-like text with every secret masked."""
    lines: list[str] = []
    for section in ("server", "store", "otlp"):
        lines += ["", f"[{section}]", *_lines(getattr(settings, section))]
    for section in ("keys", "upstreams"):
        for item in getattr(settings, section):
            lines += ["", f"[[{section}]]", *_lines(item)]
    for name, price in settings.prices.items():
        lines += ["", f'[prices."{name}"]', *_lines(price)]
    return "\n".join(lines[1:])


def _lines(section: Section) -> list[str]:
    return [
        f"{name} = {_shown(value)}"
        for name in type(section).model_fields
        if (value := getattr(section, name)) is not None and value != {}
    ]


def _shown(value: Any) -> str:
    match value:
        case SecretStr():
            return f'"{MASK}"'
        case bool():
            return str(value).lower()
        case str() | Path():
            return f'"{_without_password(str(value))}"'
        case tuple():
            return "[" + ", ".join(_shown(item) for item in value) + "]"
        case dict():
            # Values may come from the environment: any of them may be a secret.
            return "{ " + ", ".join(f'"{name}" = "{MASK}"' for name in value) + " }"
        case float():
            return f"{value:g}"
    return str(value)


def _without_password(text: str) -> str:
    return re.sub(r"(https?://)[^/?#\s]*@", rf"\1{MASK}@", text)


def _default_upstreams(env: Mapping[str, str]) -> list[dict[str, Any]]:
    echo = {"name": "echo", "kind": "echo"}
    if not env.get("OPENAI_API_KEY"):
        return [echo]
    openai = {
        "name": "openai",
        "base_url": "https://api.openai.com/v1",
        "api_key": "env:OPENAI_API_KEY",
        "models": list(_OPENAI_MODELS),
    }
    return [openai, echo]


# What pydantic calls it → what it is in the file.
_WORDS = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "string_type": "must be text in quotes",
    "path_type": "must be text in quotes",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}


def _explained(error: ValidationError, raw: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for item in error.errors(include_url=False, include_input=False):
        kind = str(item["type"])
        if kind == "extra_forbidden":
            text = f"unknown key{_nearest(item['loc'])}"
        elif kind == "value_error":
            text = str(item["ctx"]["error"])
        else:
            text = _WORDS.get(kind) or str(item["msg"]).removeprefix("Input ").replace("should", "must")
        found.append(f"{_place(item['loc'], raw)}: {text}")
    return found


def _contradictions(raw: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """What no key shows by itself. It is looked for in the file's own tables, whatever else is wrong in them."""
    keys, upstreams = _tables(raw, "keys"), _tables(raw, "upstreams")
    found = [
        *(f"keys: the name {name!r} is used twice" for name in _repeated(keys, "name")),
        *(f"keys: {' and '.join(names)} have the same key" for names in _sharing_a_key(keys, env)),
        *(f"upstreams: the name {name!r} is used twice" for name in _repeated(upstreams, "name")),
    ]
    for number, upstream in enumerate(upstreams):
        if upstream.get("kind", "openai") == "openai" and "base_url" not in upstream:
            place = _place(("upstreams", number, "base_url"), raw)
            found.append(f"{place}: is required: where the API is, like https://api.openai.com/v1")
    if raw.get("upstreams") == []:
        found.append("upstreams: there must be one at least; leave it out for the built-in ones")
    return found


def _tables(raw: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    tables = raw.get(name)
    return [table if isinstance(table, dict) else {} for table in tables] if isinstance(tables, list) else []


def _repeated(tables: list[dict[str, Any]], key: str) -> list[str]:
    values = [str(table[key]) for table in tables if key in table]
    return sorted({value for value in values if values.count(value) > 1})


def _sharing_a_key(keys: list[dict[str, Any]], env: Mapping[str, str]) -> list[list[str]]:
    names: dict[str, list[str]] = {}
    for key in keys:
        secret = str(key.get("key", ""))
        secret = env.get(secret.removeprefix("env:"), "") if secret.startswith("env:") else secret
        names.setdefault(secret, []).append(str(key.get("name")))
    return [sharing for secret, sharing in names.items() if secret and len(sharing) > 1]


def _place(loc: tuple[int | str, ...], raw: Mapping[str, Any]) -> str:
    """Where a mistake is, as the file writes it: `upstreams[0] ("openai").timeout_s`."""
    place = ""
    at: Any = raw
    for part in loc:
        at = (
            at[part]
            if isinstance(at, list) and isinstance(part, int) and part < len(at)
            else (at.get(part) if isinstance(at, dict) else None)
        )
        if isinstance(part, int):
            name = at.get("name") if isinstance(at, dict) else None
            place += f"[{part}]" + (f' ("{name}")' if isinstance(name, str) else "")
        else:
            # A whole header may stand where its name should.
            part = part.partition(":")[0] if place.endswith(".headers") else part
            place += f'."{part}"' if not part.replace("_", "").isalnum() else f".{part}"
    return place.removeprefix(".")


_SECTIONS: dict[str, type[Section]] = {
    "server": Server, "store": Store, "otlp": Otlp, "keys": Key, "upstreams": Upstream, "prices": Price,
}  # fmt: skip


def _nearest(loc: tuple[int | str, ...]) -> str:
    section = Settings if len(loc) == 1 else _SECTIONS[str(loc[0])]
    known = list(section.model_fields)
    close = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0)
    return f"; did you mean {close[0]}? Known here: {', '.join(known)}" if close else ""
