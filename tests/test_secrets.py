"""Keys are found again nowhere: not in the database, the log, the metrics or an answer of ours."""

import asyncio
import base64
import gc
import json
import logging
import os
import re
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from gateway import config
from gateway.errors import ConfigError
from tests.conftest import Gateway, StartGateway
from tests.fakes.client import raw_client
from tests.fakes.upstream import COMPLETION, USAGE_CHUNK, Received, ScriptedUpstream, Wire, chunk
from tests.processes import Process, environment, run, serving

CHAT = "/v1/chat/completions"
SPANS = "/api/request-logs"


CANARY = re.compile(rb"canary\d+x[0-9a-f]{12}")
IN_HEX = re.compile(b"canary".hex().encode() + rb"(?:[0-9a-f]{2})*", re.IGNORECASE)


class Canaries:
    """Secrets, each with a name for the place it was put into, and the search for them in whatever form."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def mint(self, place: str, *, odd: bool = False) -> str:
        """A new secret. An `odd` one looks different where it is escaped or URL-encoded."""
        core = f"canary{len(self._places)}x{os.urandom(6).hex()}"
        self._places[core] = place
        return f'{core}/+"\\%=' if odd else core

    def found_in(self, data: bytes | str) -> set[str]:
        """The places of the secrets that the data holds: plain, escaped, URL-encoded, in base64 or in hex."""
        data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        read = [data, *(bytes.fromhex(found.decode()) for found in IN_HEX.findall(data)), *_from_base64(data)]
        return {self._places[found.decode()] for text in read for found in CANARY.findall(text.lower())}


def _from_base64(data: bytes) -> Iterator[bytes]:
    """What stands in base64 around the word that each secret begins with, in each of the ways it may be aligned."""
    data = data.translate(bytes.maketrans(b"-_", b"+/"))
    for before in range(3):
        known = slice(-(-before * 8 // 6), (before + len("canary")) * 8 // 6)
        word = base64.b64encode(b"x" * before + b"canary" + b"xx")[known]
        for found in re.finditer(re.escape(word), data):
            start = max(0, found.start() - known.start)
            text = re.match(rb"[A-Za-z0-9+/]*", data[start : start + 64])[0]  # type: ignore[index]
            yield base64.b64decode(text[: len(text) // 4 * 4])


Mint = Callable[..., str]


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("behind", ["", "a", "ab"])
def test_the_search_finds_a_secret_in_any_form(before: int, behind: str) -> None:
    canaries = Canaries()
    text = "<" * before + canaries.mint("here", odd=True) + behind
    canaries.mint("elsewhere")
    for form in (
        text.encode(),
        json.dumps(json.dumps(text)).encode(),
        quote(text, safe="").encode(),
        text.encode().hex().upper().encode(),
        base64.b64encode(text.encode()),
        base64.urlsafe_b64encode(text.encode()),
    ):
        assert canaries.found_in(b"\x00" + form + b"\xff") == {"here"}
    assert canaries.found_in(b"canary") == set()


# A gateway whose log says all there is to say

# Python runs this in each process of the gateway before anything else.
LOUD = """
import asyncio.base_events, logging, sys
logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
for name in ("access", "client", "internal", "server", "web", "websocket"):
    logging.getLogger(f"aiohttp.{name}").setLevel(logging.DEBUG)
begin = asyncio.base_events.BaseEventLoop.__init__
def begin_loud(loop):
    begin(loop)
    loop.slow_callback_duration = 0
asyncio.base_events.BaseEventLoop.__init__ = begin_loud
"""

CONFIG = """
[server]
workers = {workers}
max_body_mb = 0.1

[[keys]]
name = "team-a"
key = {key}
organization_id = "org-a"

[[keys]]
name = "team-b"
key = "env:TEAM_B_KEY"
organization_id = "org-b"

[[upstreams]]
models = ["m*"]
name = "main"
base_url = "{main}/v1"
api_key = {main_key}
headers = {{ "X-Api-Key" = {main_header}, "X-Team" = {main_team} }}

[[upstreams]]
models = ["m*"]
name = "password"
base_url = "http://user:{password}@{main_host}/v1"

[[upstreams]]
models = ["m*"]
name = "token"
base_url = "http://{token}@{main_host}/v1"

[[upstreams]]
models = ["m*"]
name = "header"
base_url = "{main}/v1"
headers = {{ "Authorization" = "env:HEADER_AUTH", "X-Custom-Auth" = {custom_auth} }}

[[upstreams]]
models = ["m*"]
name = "proxied"
base_url = "http://behind.invalid/v1"
api_key = {proxied_key}
proxy = "http://user:{proxy_password}@{main_host}"

[[upstreams]]
models = ["m*"]
name = "tunnelled"
base_url = "https://user:{tunnelled_password}@behind.invalid/v1"
proxy = "http://user:{tunnel_password}@{main_host}"

[[upstreams]]
models = ["m*"]
name = "both"
base_url = "http://user:{both_password}@{main_host}/v1"
api_key = {both_key}

[[upstreams]]
models = ["m*"]
name = "refused"
base_url = "http://user:{refused_password}@127.0.0.1:{closed_port}/v1"
headers = {{ "X-Plain" = {plain_header} }}

[[upstreams]]
models = ["m*"]
name = "refused-proxy"
base_url = "http://behind.invalid/v1"
api_key = {refused_key}
proxy = "http://user:{refused_proxy_password}@127.0.0.1:{closed_port}"

[[upstreams]]
models = ["m*"]
name = "unresolved"
base_url = "http://user:{unresolved_password}@nowhere.invalid/v1"

[[upstreams]]
models = ["m*"]
name = "no-tls"
base_url = "https://user:{no_tls_password}@127.0.0.1:{plain_port}/v1"

[[upstreams]]
models = ["m*"]
name = "slow"
base_url = "http://user:{slow_password}@{main_host}/v1"
timeout_s = 0.2
idle_timeout_s = 0.2
"""
# Upstreams that answer, and those that nothing comes back from.
ANSWERING = ["main", "password", "token", "header", "proxied"]
SILENT = ["tunnelled", "both", "refused", "refused-proxy", "unresolved", "no-tls"]


def configured(
    canaries: Canaries, upstream: ScriptedUpstream, plain_port: int, workers: int
) -> tuple[str, str, dict[str, str]]:
    """A configuration full of secrets, the key of team-a, and what it needs of the environment."""
    key = canaries.mint("key of team-a")
    written = {
        name: json.dumps(canaries.mint(name, odd=True))
        for name in ("main_key", "main_header", "proxied_key", "both_key", "refused_key", "plain_header")
    }
    in_urls = (
        *("password", "token", "proxy_password", "tunnelled_password", "tunnel_password", "both_password"),
        *("refused_password", "refused_proxy_password", "unresolved_password", "no_tls_password", "slow_password"),
    )
    text = CONFIG.format(
        workers=workers,
        key=json.dumps(key),
        main=upstream.url,
        main_host=upstream.url.removeprefix("http://"),
        main_team=json.dumps("research"),
        custom_auth=json.dumps(canaries.mint("custom_auth", odd=True)),
        closed_port=closed_port(),
        plain_port=plain_port,
        **written,
        **{name: quote(canaries.mint(name, odd=True), safe="") for name in in_urls},
    )
    env = {
        "TEAM_B_KEY": canaries.mint("key of team-b"),
        "HEADER_AUTH": f"Bearer {canaries.mint('header_auth')}",
        "OPENAI_API_KEY": canaries.mint("unused in the environment"),
    }
    return text, key, env


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# An upstream that repeats what it was told


async def repeat(received: Received, wire: Wire) -> None:
    """Answers with everything that came with the request, in the way that its header X-How asks for."""
    lines = [f"{name}: {value}" for name, value in received.headers.items()]
    told = "\n".join([f"{received.method} {received.target}", *lines, received.body.decode("latin-1")])
    authorization = received.headers.get("Authorization", "none")
    match received.headers.get("X-How"):
        case "error":
            error = {"message": f"You sent {told}", "code": authorization, "type": authorization}
            await wire.json({"error": error, "request": dict(received.headers), "list": [told]}, 401)
        case "text":
            body = told.encode("latin-1", "replace")
            await wire.head(500, {"Content-Type": "text/plain", "Content-Length": str(len(body))})
            await wire.send(body)
        case "head":
            repeated = {
                "WWW-Authenticate": authorization,
                "Set-Cookie": f"a={authorization}",
                "X-You-Sent": authorization,
            }
            await wire.json(
                {"error": {"message": "no"}}, 401, repeated | {"Location": f"http://x/?key={authorization}"}
            )
        case "reason":
            body = b'{"error":"no"}'
            await wire.head(403, {"Content-Length": str(len(body))}, reason=f"No {authorization}")
            await wire.send(body)
        case "redirect":
            await wire.head(302, {"Location": f"/login?key={quote(authorization)}", "Content-Length": "0"})
        case "answer":
            said = {"role": "assistant", "content": f"You sent {told}", "refusal": None}
            choice = {**COMPLETION["choices"][0], "message": said}  # type: ignore[index]
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "note": told}
            await wire.json({**COMPLETION, "model": authorization, "choices": [choice], "usage": usage})
        case "uncounted":
            await wire.json({name: value for name, value in COMPLETION.items() if name != "usage"})
        case "stream":
            pieces = [chunk({"content": told[at : at + 7]}) for at in range(0, len(told), 7)]
            await wire.events(
                chunk({"role": "assistant"}), *pieces, {"error": {"message": told, "code": authorization}}
            )
        case "cut":
            await wire.stream_head()
            await wire.chunk(f"data: {json.dumps(chunk({'content': told}))}\n\n")
            wire.abort()
        case "junk":
            await wire.send(f"{told}\r\n\r\n")
            wire.close()
        case "bad head":
            await wire.send(f"HTTP/1.1 200 OK\r\nX-You-Sent: {authorization}\x00\r\n{authorization}\r\n\r\n")
            wire.close()
        case "bad chunk":
            await wire.stream_head()
            await wire.send(f"{authorization}\r\n")
            wire.close()
        case "nothing":
            await wire.gone()
        case "half":
            await wire.stream_head()
            await wire.chunk(f"data: {json.dumps(chunk({'content': told}))}\n\n")
            await wire.gone()
        case _:
            await wire.json({"error": told}, 400)


async def speak_no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


# With these nothing that the upstream says goes on to the client.
OURS = ["junk", "bad head"]
HOWS = ["error", "text", "head", "reason", "redirect", "answer", "uncounted", "stream", "cut", "bad chunk", *OURS]


class Requests:
    """The requests of one run, and those answers that are ours."""

    def __init__(self, mint: Mint, session: aiohttp.ClientSession) -> None:
        self._mint = mint
        self._session = session
        self.answers: list[str] = []
        self.key = session.headers["Authorization"].removeprefix("Bearer ")

    async def send(
        self, method: str, target: str, status: int | None = None, *, is_ours: bool = True, **kwargs: Any
    ) -> str:
        """Sends a request with the key of team-a; its whole answer is kept where it `is_ours`."""
        async with self._session.request(method, target, allow_redirects=False, **kwargs) as reply:
            try:
                text = f"{reply.status} {reply.reason} {dict(reply.headers)} {await reply.text()}"
            except aiohttp.ClientPayloadError:
                text = f"{reply.status} {dict(reply.headers)}"
        assert status in (None, reply.status), text
        if is_ours:
            self.answers.append(text)
        return text

    def secret_headers(self) -> dict[str, str]:
        """Headers with a secret each, of those that go on to the upstream and those that do not."""
        names = ["api-key", "x-goog-api-key", "Cookie", "Proxy-Authorization", "X-Respan-Api-Key", "X-Data-Key"]
        names += ["X-Auth-Token", "X-Amz-Security-Token", "My-Secret"]
        return {name: self._mint(f"header {name}") for name in names}

    def secret_body(self, **more: Any) -> dict[str, Any]:
        """A chat with a secret wherever one may be put."""
        mint = self._mint
        return {
            "messages": [{"role": "user", "content": "Hi"}],
            "credential_override": {"m": {"api_key": mint("credential_override", odd=True)}},
            "customer_credentials": {"openai": {"api_key": mint("customer_credentials", odd=True)}},
            "customer_params": {"customer_identifier": "u-1", "api_key": mint("customer_params")},
            "metadata": {"headers": {"Authorization": mint("metadata", odd=True)}},
            "variables": {"password": mint("variables", odd=True)},
            "respan_params": {
                "credential_override": {"m": {"api_key": mint("nested credential_override")}},
                "customer_credentials": {"openai": {"api_key": mint("nested customer_credentials")}},
                "properties": {"x-api-key": mint("nested properties")},
                "unknown": {"cookie": mint("unknown param")},
            },
            "keywordsai_params": {"customer_params": {"access_token": mint("keywordsai_params")}},
            "tools": [
                {
                    "type": "mcp",
                    "server_url": f"https://user:{quote(mint('server_url', odd=True), safe='')}@mcp.invalid/sse"
                    f"?api_key={quote(mint('server_url query', odd=True), safe='')}",
                    "authorization": mint("tool authorization", odd=True),
                    "headers": {"Authorization": f"Bearer {mint('tool header')}", "X-API-Key": mint("tool header 2")},
                },
                {"type": "other", "headers": [["cookie", f"session={mint('tool cookie')}; a=b"]]},
            ],
            **more,
        }

    def params_header(self) -> str:
        """What X-Data-Respan-Params may hold."""
        mint = self._mint
        params = {"credential_override": {"m": {"api_key": mint("params header")}}, "note": "n"}
        return base64.b64encode(json.dumps(params).encode()).decode()


@asynccontextmanager
async def running(
    folder: Path, workers: int, upstream: ScriptedUpstream, canaries: Canaries
) -> AsyncIterator[tuple[Process, Requests]]:
    """A gateway in a process of its own, with secrets wherever a configuration has room for one."""
    plain = await asyncio.start_server(speak_no_tls, "127.0.0.1", 0)
    text, key, env = configured(canaries, upstream, plain.sockets[0].getsockname()[1], workers)
    (folder / "config.toml").write_text(text)
    (folder / "loud").mkdir()
    (folder / "loud" / "sitecustomize.py").write_text(LOUD)
    (folder / "tmp").mkdir()
    env |= {"PYTHONPATH": f"{folder / 'loud'}{os.pathsep}{environment()['PYTHONPATH']}", "TMPDIR": f"{folder / 'tmp'}"}
    async with plain:
        with serving(folder, **env, PYTHONASYNCIODEBUG="1") as process:
            headers = {"Authorization": f"Bearer {key}"}
            async with aiohttp.ClientSession(process.url, headers=headers) as session:
                yield process, Requests(canaries.mint, session)


def everything_kept(folder: Path) -> dict[str, bytes]:
    """Each file that the gateway has written, and what its database holds."""
    kept = {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name not in ("config.toml", "sitecustomize.py")
    }
    with closing(sqlite3.connect(folder / "gateway.db")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        kept |= {f"table {name}": repr(db.execute(f"SELECT * FROM {name}").fetchall()).encode() for name in tables}
    return kept


async def call_every_upstream(requests: Requests, mint: Mint) -> None:
    """Each upstream answers in each way, or not at all."""

    async def call(name: str, how: str, status: int | None = None) -> None:
        query = f"api_key={quote(mint('query api_key', odd=True), safe='')}&key={mint('query key')}&a=b"
        headers = {**requests.secret_headers(), "X-How": how, "X-Data-Respan-Params": requests.params_header()}
        body = requests.secret_body(model=f"{name}/m", stream=how in ("stream", "cut", "bad chunk", "half"))
        await requests.send("POST", f"{CHAT}?{query}", status, is_ours=status is not None, headers=headers, json=body)

    for name in ANSWERING:
        for how in HOWS:
            await call(name, how, 502 if how in OURS else None)
    for name in SILENT:
        await call(name, "error", 502)
    await call("slow", "nothing", 504)
    await call("slow", "half")


async def call_every_route(requests: Requests, mint: Mint, url: str) -> None:
    """Each route of the proxy, relayed and refused."""
    for path in ("/api/chat/completions", "/api/openai/v1/chat/completions", *ROUTES):
        for how in ("error", "answer"):
            target = f"{path}?api_key={mint('query of a route')}"
            body = requests.secret_body(model="main/m", input="Hi", prompt="Hi")
            await requests.send(
                "POST", target, is_ours=False, headers=requests.secret_headers() | {"X-How": how}, json=body
            )
    form = aiohttp.FormData({"model": "main/m", "respan_params[credential_override][m][api_key]": mint("form")})
    form.add_field("file", b"RIFF", filename="a.wav")
    await requests.send("POST", "/v1/audio/transcriptions", is_ours=False, headers={"X-How": "error"}, data=form)
    await requests.send(
        "POST", "/v1/other", is_ours=False, headers={"X-How": "uncounted"}, data=f"key={mint('opaque')}"
    )
    for how, status in (("error", 401), ("redirect", 302), ("junk", 502), ("bad head", 502)):
        target = f"/v1/files?api_key={mint('query of a GET')}&key={mint('query of a GET')}"
        headers = requests.secret_headers() | {"X-How": how}
        await requests.send("GET", target, status, is_ours=status == 502, headers=headers)

    broken = f'{{"model": "main/m", "api_key": "{mint("broken body")}"'
    await requests.send("POST", CHAT, 400, data=broken)
    await requests.send("POST", CHAT, 413, json=requests.secret_body(model="main/m", padding=" " * 200_000))
    await requests.send("POST", CHAT, 404, json=requests.secret_body(model="none/m"))
    for headers in (
        {"Authorization": f"Bearer {mint('wrong key')}"},
        {"Authorization": f"{mint('wrong bare key')}"},
        {"Authorization": "", "x-api-key": mint("wrong x-api-key")},
    ):
        for path in (CHAT, f"{SPANS}/"):
            await requests.send("POST", path, 401, headers=headers, json=requests.secret_body(model="main/m"))
    await requests.send("GET", f"/nowhere?api_key={mint('query of no route')}", 404)
    await requests.send("DELETE", f"{SPANS}/list/?api_key={mint('query of no method')}", 405)
    await requests.send("GET", f"{SPANS}/list/?api_key={mint('query of a list')}", 400)
    await requests.send("GET", f"{SPANS}/list/?page={mint('page of a list')}", 400)
    await requests.send("GET", f"{SPANS}/list/?start_time={mint('start of a list')}", 400)
    await requests.send("GET", "/v1/models", 200)
    async with raw_client(url, mint("raw key")) as client:
        await client.send_head("GET", f"/health?key={mint('raw query')}", f"X-Api-Key: {mint('raw header')}\x00")
        requests.answers.append((await client.read_rest()).decode())


ROUTES = ["/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/moderations"]


async def post_spans(requests: Requests, mint: Mint, content: str) -> None:
    """Spans that tell of secrets, and some that are refused."""
    for headers in headers_in_every_way(mint):
        span = {
            "model": "m",
            "input": [{"role": "user", "content": f"My key is {content}"}],
            "output": "Hello",
            "full_request": {"url": f"https://u:{mint('url')}@h/v1?key={mint('url query')}", "headers": headers},
            "full_response": {"status": 200, "headers": headers, "request": {"headers": headers}},
        }
        await requests.send("POST", f"{SPANS}/", 201, json=span)
    everything = requests.secret_body(model="m", output="Hello", full_request=requests.secret_body(), headers={"a": 1})
    header = {"X-Data-Respan-Params": requests.params_header()}
    await requests.send("POST", f"{SPANS}/create", 201, headers=requests.secret_headers() | header, json=everything)
    logs = [
        requests.secret_body(model="m"),
        requests.secret_body(),
        requests.secret_body(model="m", latency=mint("bad latency")),
        5,
    ]
    await requests.send("POST", f"{SPANS}/bulk/", 201, json={"logs": logs})
    for name in ("latency", "start_time", "usage", "tools", "stream", "metadata", "status_code", "response_format"):
        for bad in (mint(f"bad {name}"), [mint(f"bad {name}")], {"a": mint(f"bad {name}")}):
            await requests.send("POST", f"{SPANS}/", is_ours=True, json={"model": 5, name: bad})
    await requests.send("POST", f"{SPANS}/", 400, data=f'{{"model": "m", "api_key": "{mint("broken span")}')


def headers_in_every_way(mint: Mint) -> Iterator[Any]:
    names = ["Authorization", "PROXY-AUTHORIZATION", "cookie", "Set-Cookie", "x-api-key", "api-key", "x-goog-api-key"]
    names += ["X-Amz-Security-Token", "x-auth-token", "Ocp-Apim-Subscription-Key"]
    values = [(name, mint(f"posted {name}", odd=True)) for name in names]
    yield dict(values)
    yield {name: [value, value] for name, value in values}
    yield {f"b'{name}'": f"b'{value}'" for name, value in values}
    yield [list(pair) for pair in values]
    yield [[f"b'{name}'", f"b'{value}'"] for name, value in values]
    yield [{"name": name, "value": value} for name, value in values]
    yield [{"key": name, "values": [value]} for name, value in values]
    yield "".join(f"{name}: {value}\r\n" for name, value in values)
    yield [f"{name}: {value}" for name, value in values]
    yield [text for pair in values for text in pair]
    yield json.dumps(dict(values))
    yield repr(values)


async def reload_badly(process: Process, mint: Mint, folder: Path) -> None:
    """A bad file, then the good one with another key."""
    file = folder / "config.toml"
    good = file.read_text()
    for text in (
        f'{good}\n[[keys]]\nname = 5\nkey = "{mint("bad file")}"\nenvironment = "{mint("bad environment")}"',
        "]",
    ):
        file.write_text(text)
        await reload(process, "Nothing was reloaded")
    file.write_text(f'{good}\n[[keys]]\nname = "new"\nkey = "{mint("new key")}"\n')
    await reload(process, "Reloaded; changed are 1 key, 0 upstreams")


async def reload(process: Process, said: str) -> None:
    times = process.log.count(said)
    process.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(60):
        while process.log.count(said) == times:
            await asyncio.sleep(0.01)


async def sign_in(requests: Requests, mint: Mint) -> None:
    """By the form, with wrong keys and links and with the right key; then what the page asks for."""
    for name in ("key", "link"):
        await requests.send("POST", "/login", 401, data={name: mint(f"wrong {name} in a form", odd=True)})
        await requests.send("POST", "/login", 413, data={name: mint(f"long {name} in a form") * 1000})
    await requests.send("POST", "/login", 400, json={"key": mint("key in no form")})
    answer = await requests.send("POST", "/login", 303, data={"key": requests.key})
    found = re.search(r"gw_session=[\w.-]+", answer)
    assert found
    for path in ("/", "/login", "/api/session/", f"{SPANS}/list/"):
        await requests.send("GET", path, headers={"Cookie": found[0]})


async def read_back(requests: Requests) -> None:
    """Everything that can be read."""
    listed = await requests.send("GET", f"{SPANS}/list/?page_size=1000", 200)
    ids = [span["unique_id"] for span in json.loads(listed[listed.index('{"count"') :])["results"]]
    assert len(ids) > 100
    for unique_id in ids[::7]:
        await requests.send("GET", f"{SPANS}/{unique_id}/", 200)
    for path in ("/metrics", "/openapi.json", "/docs", "/health", "/ready", "/login", f"{SPANS}/audit/"):
        await requests.send("GET", path, 200)


def assert_no_secret_is_told_to_children(process: Process, canaries: Canaries) -> None:
    """What other processes may see of the gateway's, besides the environment that it was given."""
    own = Path(f"/proc/{process.process.pid}")
    given = canaries.found_in((own / "environ").read_bytes())
    processes = [own, *children(own)]
    for found in processes:
        assert canaries.found_in((found / "cmdline").read_bytes()) == set()
        assert canaries.found_in((found / "environ").read_bytes()) <= given


def children(process: Path) -> Iterator[Path]:
    for thread in (process / "task").iterdir():
        for child in (thread / "children").read_text().split():
            yield (found := Path(f"/proc/{child}"))
            yield from children(found)


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_secret_of_a_run_is_found_again(workers: int, tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.play = repeat
    canaries = Canaries()
    content = canaries.mint("content")
    async with running(tmp_path, workers, upstream, canaries) as (process, requests):
        await call_every_upstream(requests, canaries.mint)
        await call_every_route(requests, canaries.mint, process.url)
        await post_spans(requests, canaries.mint, content)
        await reload_badly(process, canaries.mint, tmp_path)
        await sign_in(requests, canaries.mint)
        await read_back(requests)
        assert_no_secret_is_told_to_children(process, canaries)
        while_running = everything_kept(tmp_path)
        assert process.stop() == 0
    found = {"answers": canaries.found_in("".join(requests.answers)) - {"content"}}
    for name, data in (while_running | everything_kept(tmp_path)).items():
        allowed = {"content"} if name.startswith(("gateway.db", "table ")) else set()
        found[name] = canaries.found_in(data) - allowed
    leaks = [f"{name}: {', '.join(sorted(places))}" for name, places in found.items() if places]
    assert not leaks, "\n".join(leaks)
    # The search reads what it should.
    assert canaries.found_in(while_running["table content"]) == {"content"}
    assert b"DEBUG:asyncio:" in while_running["stderr.txt"]


async def test_secrets_are_looked_for_however_deep_a_request_is_nested(gateway: Gateway) -> None:
    canaries = Canaries()
    deep = '{"api_key": "' + canaries.mint("deep") + '"}'
    for _ in range(120):
        deep = f'{{"a": [{deep}]}}'
    too_deep = "[" * 900 + "]" * 900
    for body in (f'{{"model": "m", "tools": [{deep}]}}', f'{{"model": "m", "tools": {too_deep}}}'):
        span = await gateway.span_of(CHAT, data=body)
        assert span["status"] == "success"
        assert canaries.found_in(json.dumps(span)) == set()


# Mistakes in the configuration

UPSTREAM = '[[upstreams]]\nname = "u"\nbase_url = "http://h"\n'
MISTAKES = {
    "no such environment": '[[keys]]\nname = "a"\nkey = "env:{canary}"',
    "not text": '[[keys]]\nname = "a"\nkey = ["{canary}"]\norganization_id = {{ a = "{canary}" }}',
    "none of the values": '[[keys]]\nname = "a"\nkey = "{canary}"\nenvironment = "{canary}"',
    "the same key": '[[keys]]\nname = "a"\nkey = "{canary}"\n[[keys]]\nname = "b"\nkey = "{canary}"',
    "no name": '[[keys]]\nkey = "{canary}"',
    "unknown key": '[[keys]]\nname = "a"\nsecret = "{canary}"',
    "no URL": '[[upstreams]]\nname = "u"\nbase_url = "htps://user:{canary}@h"\nproxy = "socks5://user:{canary}@h"',
    "a query": '[[upstreams]]\nname = "u"\nbase_url = "https://h/v1?api_key={canary}"',
    "two lines": UPSTREAM + 'api_key = "{canary}\\n"\nheaders = {{ "X-Key" = "{canary}\\n" }}',
    "a header in its name": UPSTREAM + 'headers = {{ "Authorization: Bearer {canary}" = "" }}',
    "headers as text": UPSTREAM + 'headers = "Authorization: Bearer {canary}"',
    "headers as a list": UPSTREAM + 'headers = ["Authorization: Bearer {canary}"]',
    "no number": UPSTREAM + 'timeout_s = "{canary}"\ninject_usage = "{canary}"\nmodels = "{canary}"',
    "no TOML": '[[keys]]\nname = "a"\nkey = "{canary}',
    "no quotes": '[[keys]]\nname = "a"\nkey = {canary}',
    "twice": '[[keys]]\nname = "a"\nkey = "{canary}"\nkey = "{canary}"',
    "a table and a value": 'keys = "{canary}"\n[[keys]]\nname = "a"',
}


@pytest.mark.parametrize("text", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_the_configuration_is_told_without_the_secret_in_it(text: str) -> None:
    canaries = Canaries()
    with pytest.raises(ConfigError) as raised:
        config.parse(text.format(canary=canaries.mint("the secret")), "config.toml", {})
    assert canaries.found_in(str(raised.value)) == set()
    assert "config.toml: " in str(raised.value)


@pytest.mark.parametrize("password", ["{canary}", "a@{canary}", "{canary}@b", "a:{canary}"])
def test_the_resolved_settings_show_no_password(password: str) -> None:
    canaries = Canaries()
    secret = password.format(canary=canaries.mint("the secret"))
    text = f'{UPSTREAM.replace("http://", f"https://user:{secret}@")}proxy = "http://{secret}@h"\n'
    settings = config.parse(text, "config.toml", {})
    assert canaries.found_in(config.resolved(settings) + repr(settings)) == set()


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_command_tells_mistakes_without_secrets_and_without_a_traceback(command: str, tmp_path: Path) -> None:
    canaries = Canaries()
    text = MISTAKES["a header in its name"] + "\n" + MISTAKES["none of the values"]
    (tmp_path / "config.toml").write_text(text.format(canary=canaries.mint("the secret")))
    ended = run(command, folder=tmp_path)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (1, "", 3)
    assert canaries.found_in(ended.stderr) == set()


# Mistakes in the gateway


def failing(secret: str) -> Callable[..., Any]:
    """Stands in for a function that has a mistake, which raises an error with more in it than it should."""

    def fail(*args: object, **kwargs: object) -> Any:
        raise RuntimeError(f"cannot go on with {secret}") from ValueError(secret)

    return fail


@pytest.mark.parametrize(
    "place",
    [
        "gateway.upstream.client.HttpUpstream.send",
        "gateway.proxy.StreamMeter.feed",
        "gateway.proxy.StreamMeter.read",
        "gateway.proxy.judged",
        "gateway.recorder.Recorder.open_call",
        "gateway.store.store.Store.open",
        "gateway.store.store.Store.settle",
        "gateway.store.queries.insert_contents",
        "gateway.store.queries.stored_row",
        "gateway.store.queries.find_span",
        "gateway.store.lists.rows",
        "gateway.recorder.complete.add_estimates",
        "gateway.recorder.complete.price",
        "gateway.tokenizer.Tokenizer.count",
        "gateway.web.relay.HttpClient.begin",
        "gateway.web.answer.RelayedAnswer._send",
        "gateway.web.relay.HttpClient.end",
        "gateway.web.spans.json_reply",
    ],
)
async def test_an_unexpected_error_is_told_without_its_words(
    place: str,
    start_gateway: StartGateway,
    upstream: ScriptedUpstream,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        async with asyncio.timeout(60):
            while place.endswith(("open_call", "Store.open")) and "RuntimeError" not in caplog.text:
                await asyncio.sleep(0)
        await wire.events(chunk({"content": "Hello"}), *([USAGE_CHUNK] if usage else []))

    usage = {} if "add_estimates" in place or "Tokenizer" in place else {"usage": USAGE_CHUNK["usage"]}
    upstream.play = play
    canaries = Canaries()
    caplog.set_level(logging.DEBUG)
    gateway = await start_gateway()
    monkeypatch.setattr(place, failing(canaries.mint("the secret")))
    answers = [
        await answer_of(gateway, "POST", CHAT, json={"model": "m", "messages": [], "stream": True}),
        await answer_of(gateway, "POST", f"{SPANS}/", json={"model": "m", "input": "Hi", "output": "Hello", **usage}),
        await answer_of(gateway, "GET", f"{SPANS}/list/"),
        await answer_of(gateway, "GET", f"{SPANS}/{'0' * 32}/"),
        await answer_of(gateway, "GET", "/metrics"),
    ]
    # Of a task that nobody looks at, the event loop tells when it is gone.
    gc.collect()
    await asyncio.sleep(0)
    assert canaries.found_in("\n".join(answers)) == set()
    assert canaries.found_in(caplog.text) == set()
    assert canaries.found_in("".join(capfd.readouterr())) == set()
    assert "RuntimeError" in caplog.text
    for file in gateway.path.parent.iterdir():
        assert canaries.found_in(file.read_bytes()) == set(), file.name


async def answer_of(gateway: Gateway, method: str, target: str, **kwargs: Any) -> str:
    try:
        async with gateway.session.request(method, target, **kwargs) as reply:
            return f"{reply.status} {dict(reply.headers)} {await reply.text()}"
    except aiohttp.ClientError as error:
        return repr(error)
