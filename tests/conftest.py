"""A real gateway in this process, on a real port, before a scripted upstream on another."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from hypothesis import settings
from multidict import CIMultiDict

from gateway import config
from gateway.app import opened, served
from gateway.clock import Clock
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import ScriptedUpstream, answer_chat

# What these assert is shown in full too.
pytest.register_assert_rewrite("tests.soak.load", "tests.troubled")

# Properties are tried on the same examples each time, so that a commit passes or does not; `--hypothesis-profile new`
# draws others. No test depends on how fast the machine is.
settings.register_profile("new", settings.get_profile("ci"), derandomize=False)
settings.load_profile("ci")

KEY = "test-key-of-org-a"
OTHER_KEY = "test-key-of-org-b"

_CONFIG = """
[server]
port = 0
{server}

[store]
path = '{folder}/spans.db'
{store}

[[keys]]
name = "team-a"
key = "{key}"
organization_id = "org-a"

[[keys]]
name = "team-b"
key = "{other_key}"
organization_id = "org-b"
environment = "test"

[[upstreams]]
name = "main"
base_url = "{upstream}/v1"
api_key = "upstream-secret"
"""


@dataclass
class Reply:
    """An answer of a proxied call, read to its end."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def log_id(self) -> str:
        return self.headers["X-Respan-Log-Id"]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Gateway:
    """A running gateway. `session` carries the key of org-a."""

    url: str
    session: aiohttp.ClientSession
    path: Path

    async def post(self, span: Any, **kwargs: Any) -> tuple[int, Any]:
        """Posts a span: status and reply."""
        async with self.session.post("/api/request-logs/", json=span, **kwargs) as response:
            return response.status, await response.json()

    async def call(self, path: str, **kwargs: Any) -> Reply:
        """A proxied POST; its span is stored by the time this returns."""
        async with self.session.post(path, **kwargs) as response:
            return Reply(response.status, CIMultiDict(response.headers), await response.read())

    async def span_of(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """The span that a proxied POST leaves."""
        return await self.get((await self.call(path, **kwargs)).log_id)

    async def get(self, unique_id: str) -> dict[str, Any]:
        """One stored span."""
        async with self.session.get(f"/api/request-logs/{unique_id}/") as response:
            assert response.status == 200, await response.text()
            span: dict[str, Any] = await response.json()
            return span

    async def spans(self) -> list[dict[str, Any]]:
        """All spans of org-a, newest first."""
        async with self.session.get("/api/request-logs/list/?page_size=1000") as response:
            assert response.status == 200, await response.text()
            results: list[dict[str, Any]] = (await response.json())["results"]
            return results

    async def eventually(self, unique_id: str, settled: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The span once it looks as wanted: for what is put in after the commit. Fails by the test's time limit."""
        async with asyncio.timeout(60):
            while True:
                async with self.session.get(f"/api/request-logs/{unique_id}/") as response:
                    if response.status == 200 and settled(span := await response.json()):
                        return span
                await asyncio.sleep(0.01)

    async def only_span(self) -> dict[str, Any]:
        """The one span there is, once it is settled."""
        async with asyncio.timeout(60):
            while not (spans := await self.spans()) or spans[0]["status"] == "running":
                await asyncio.sleep(0.01)
        assert len(spans) == 1
        return spans[0]


StartGateway = Callable[..., Awaitable[Gateway]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the commands run on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, help="how long each test of tests/soak goes on (default: a short stride)")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, a connection that was lost was lost at once."""
    monkeypatch.setattr("gateway.upstream.client._LOST_AT_ONCE_S", 60.0)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    scripted = ScriptedUpstream(answer_chat)
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def start_gateway(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[StartGateway]:
    """Starts a gateway: `more` is TOML behind the usual upstream, `server` and `store` more lines of these sections,
    `clock` a clock of the test's own."""
    async with AsyncExitStack() as stack:

        async def start(more: str = "", clock: Clock | None = None, server: str = "", store: str = "") -> Gateway:
            text = _CONFIG.format(
                folder=tmp_path, key=KEY, other_key=OTHER_KEY, upstream=upstream.url, server=server, store=store
            )
            text += more
            parsed = config.parse(text, "test.toml", {})
            opened_gateway = await stack.enter_async_context(opened(parsed, clock))
            url = await stack.enter_async_context(served(parsed, opened_gateway))
            headers = {"Authorization": f"Bearer {KEY}"}
            session = await stack.enter_async_context(aiohttp.ClientSession(url, headers=headers))
            return Gateway(url, session, parsed.store.path)

        yield start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> Gateway:
    return await start_gateway()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ca.pem`, and `server.pem` and `server.key` that it signed for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    new_key = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    (folder / "server.ext").write_text("subjectAltName = IP:127.0.0.1\n")
    for command in (
        [*new_key, "-x509", "-days", "2", "-subj", "/CN=test ca", "-keyout", "ca.key", "-out", "ca.pem",
         "-addext", "keyUsage=critical,keyCertSign"],
        [*new_key, "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr"],
        ["openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
         "-days", "2", "-extfile", "server.ext", "-out", "server.pem"],
    ):  # fmt: skip
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder
