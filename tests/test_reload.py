"""SIGHUP: new keys, upstreams and prices for calls that are yet to come, and nothing else for those that run."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from gateway import config
from gateway.app import opened, served
from tests.fakes.client import raw_client, soon, unchunked
from tests.fakes.upstream import USAGE_CHUNK, Received, ScriptedUpstream, Wire, answer_chat, chunk
from tests.processes import GATEWAY, Process, environment, serving

ROUTE = "/v1/chat/completions"
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
UNTOLD = {"model": "gpt-4o-mini", "stream": True, "stream_options": {"include_usage": True}}
STAYS = "ERROR Nothing was reloaded: the old settings stay in force."
NOTHING_CHANGED = "INFO Reloaded; changed are 0 keys, 0 upstreams and 0 prices."


def text(
    address: str, *, key: str = "key-of-then", secret: str = "secret-of-then", usd: int = 1, name: str = "main"
) -> str:
    """A configuration with one key, one upstream and one price."""
    return f"""
[[keys]]
name = "team"
key = "{key}"

[[upstreams]]
name = "{name}"
base_url = "{address}/v1"
api_key = "{secret}"
models = ["gpt-*"]

[prices."gpt-*"]
prompt = {usd}
completion = {usd}
"""


def reload(gateway: Process, new: str) -> None:
    """Writes the configuration and sends SIGHUP."""
    (gateway.folder / "config.toml").write_text(new)
    gateway.process.send_signal(signal.SIGHUP)


async def logged(gateway: Process, line: str) -> None:
    """Waits for a line in the log."""
    await until(lambda: line in gateway.log_lines)


async def status(url: str, key: str) -> int:
    """How a call with this key is answered, on a connection of its own: any of the workers may get it."""
    async with (
        aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {key}"}) as session,
        session.post(ROUTE, json=CHAT) as response,
    ):
        await response.read()
        return response.status


async def all_workers_answer(url: str, key: str, expected: int) -> None:
    """Waits until there are workers, and none answers otherwise any more."""

    async def answered() -> int | None:
        try:
            return await status(url, key)
        except aiohttp.ClientConnectorError:
            return None

    async with asyncio.timeout(60):
        while {await answered() for _ in range(20)} != {expected}:
            pass


@pytest.fixture
async def other() -> AsyncIterator[ScriptedUpstream]:
    """A second upstream."""
    scripted = ScriptedUpstream(answer_chat)
    await scripted.start()
    yield scripted
    await scripted.stop()


class Slow:
    """Plays a stream that repeats the key it was called with, and ends when it is told to."""

    def __init__(self) -> None:
        said = chunk({"content": "key: secret-of-then"})
        self.pieces = [b"data: %s\n\n" % json.dumps(event).encode() for event in (said, USAGE_CHUNK)]
        self.go_on = asyncio.Event()
        self.left = asyncio.Event()

    async def play(self, received: Received, wire: Wire) -> None:
        if not received.json().get("stream"):
            await answer_chat(received, wire)
            return
        await wire.stream_head()
        await wire.chunk(self.pieces[0])
        await self.go_on.wait()
        with suppress(ConnectionError):
            await wire.chunk(self.pieces[1], b"data: [DONE]\n\n")
            await wire.end_chunks()
            await wire.gone()
        self.left.set()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_running_stream_goes_on_byte_for_byte_while_new_calls_follow_the_new_file(
    tmp_path: Path, workers: int, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    slow = Slow()
    upstream.play = slow.play
    (tmp_path / "config.toml").write_text(text(upstream.url))
    with serving(tmp_path, "--workers", str(workers)) as gateway:
        async with raw_client(gateway.url, "key-of-then") as client:
            await client.post(ROUTE, json.dumps(UNTOLD).encode())
            await client.read_head()
            await client.read_until(slow.pieces[0] + b"\r\n")

            reload(gateway, text(other.url, key="key-of-now", secret="secret-of-now", usd=2, name="next"))
            await logged(gateway, "INFO Reloaded; changed are 1 key, 2 upstreams and 1 price.")
            await all_workers_answer(gateway.url, "key-of-now", 200)
            await all_workers_answer(gateway.url, "key-of-then", 401)
            assert {request.headers["Authorization"] for request in other.requests} == {"Bearer secret-of-now"}

            slow.go_on.set()
            body = await client.read_until(b"0\r\n\r\n")
        assert unchunked(body) == (b"".join(slow.pieces) + b"data: [DONE]\n\n", True)
        assert await asyncio.to_thread(gateway.stop) == 0
    with sqlite3.connect(tmp_path / "gateway.db") as db:
        streamed = db.execute("SELECT upstream, status, output FROM spans WHERE stream").fetchall()
        others = db.execute("SELECT DISTINCT upstream, status, cost_picos FROM spans WHERE NOT stream").fetchall()
    assert [(name, ended, "key: ***" in output) for name, ended, output in streamed] == [("main", "success", True)]
    assert others == [("next", "success", 11 * 2 * 1_000_000)]
    assert len(upstream.requests) == 1, "no call that came later went to the upstream of then"


@pytest.mark.parametrize(
    ("bad", "mistakes"),
    [
        ("[server", ["not valid TOML: Expected ']' at the end of a table declaration (at end of document)"]),
        (
            '[server]\nprot = 1\n[[keys]]\nname = "a"\nkey = "env:NOT_SET_ANYWHERE"\n',
            [
                "server.prot: unknown key; did you mean port?",
                'keys[0] ("a").key: the environment variable NOT_SET_ANYWHERE is not set',
            ],
        ),
        ("[store]\npath = 'nowhere/gateway.db'", ["store.path: there is no folder nowhere"]),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_bad_file_leaves_everything_as_it_was_and_the_log_says_why(
    tmp_path: Path, upstream: ScriptedUpstream, workers: int, bad: str, mistakes: list[str]
) -> None:
    (tmp_path / "config.toml").write_text(text(upstream.url))
    with serving(tmp_path, "--workers", str(workers)) as gateway:
        reload(gateway, bad)
        await logged(gateway, STAYS)
        told = [line for line in gateway.log_lines if line.startswith("ERROR")]
        assert len(told) == len(mistakes) + 1
        for mistake, line in zip(mistakes, told, strict=False):
            assert line.startswith(f"ERROR config.toml: {mistake}")
        assert await status(gateway.url, "key-of-then") == 200

        # Workers that take the place of others know the settings in force, too.
        if workers > 1:
            await _replace_the_workers(gateway)
            await all_workers_answer(gateway.url, "key-of-then", 200)
        reload(gateway, text(upstream.url))
        await logged(gateway, NOTHING_CHANGED)
        assert await asyncio.to_thread(gateway.stop) == 0
    assert {request.headers["Authorization"] for request in upstream.requests} == {"Bearer secret-of-then"}


async def test_a_worker_that_starts_later_has_the_settings_in_force_and_the_server_of_the_start(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    (tmp_path / "config.toml").write_text(text(upstream.url))
    with serving(tmp_path, "--workers", "2") as gateway:
        reload(gateway, f"[store]\npath = 'other.db'\n{text(upstream.url, key='key-of-now')}")
        await logged(gateway, "WARNING [store] path takes a restart.")
        await _replace_the_workers(gateway)
        await all_workers_answer(gateway.url, "key-of-now", 200)
        await all_workers_answer(gateway.url, "key-of-then", 401)
        assert await asyncio.to_thread(gateway.stop) == 0
    assert not (tmp_path / "other.db").exists()


async def _replace_the_workers(gateway: Process) -> None:
    """Kills them and waits until others are being started."""
    killed = set(_children(gateway.process.pid))
    for child in killed:
        os.kill(child, signal.SIGKILL)
    await until(lambda: len(set(_children(gateway.process.pid)) - killed) == len(killed))


def _children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


async def test_what_takes_a_restart_is_named_and_flags_still_win(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    (tmp_path / "config.toml").write_text(f"[server]\ndrain_s = 5\n{text(upstream.url)}")
    with serving(tmp_path) as gateway:
        changed = "[server]\nport = 1\nworkers = 3\ndrain_s = 6\n[store]\nsynchronous = 'full'\ncommit_wait_ms = 0\n"
        for _ in range(2):
            told = len(gateway.log_lines)
            reload(gateway, changed + text(upstream.url))
            await logged(gateway, "WARNING [store] synchronous takes a restart.")
            assert gateway.log_lines[told:] == [
                NOTHING_CHANGED,
                "WARNING [server] workers takes a restart.",
                "WARNING [server] drain_s takes a restart.",
                "WARNING [store] commit_wait_ms takes a restart.",
                "WARNING [store] synchronous takes a restart.",
            ]
            (tmp_path / "stderr.txt").write_text("")
        assert await status(gateway.url, "key-of-then") == 200
        assert gateway.stop() == 0


async def test_without_a_file_the_key_beside_the_database_is_read_again(tmp_path: Path) -> None:
    async def models(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(gateway.url, headers=headers) as session, session.get("/v1/models") as answer:
            return answer.status

    with serving(tmp_path) as gateway:
        first = gateway.key
        gateway.process.send_signal(signal.SIGHUP)
        await logged(gateway, NOTHING_CHANGED)

        (tmp_path / "gateway.db.key").write_text("a key of mine\n")
        gateway.process.send_signal(signal.SIGHUP)
        await logged(gateway, "INFO Reloaded; changed are 1 key, 0 upstreams and 0 prices.")
        assert [await models(first), await models("a key of mine")] == [401, 200]

        (tmp_path / "gateway.db.key").write_text("")
        gateway.process.send_signal(signal.SIGHUP)
        await logged(gateway, STAYS)
        assert "The key file gateway.db.key is empty" in gateway.log
        assert await models("a key of mine") == 200

        (tmp_path / "gateway.db.key").unlink()
        (tmp_path / "stderr.txt").write_text("")
        gateway.process.send_signal(signal.SIGHUP)
        await logged(gateway, "INFO Reloaded; changed are 1 key, 0 upstreams and 0 prices.")
        assert f"this key was made and is kept in gateway.db.key: {gateway.key}\n" in gateway.log
        assert [await models("a key of mine"), await models(gateway.key)] == [401, 200]
        assert gateway.stop() == 0


@pytest.mark.parametrize("arguments", [(), ("--config", "config.toml")])
async def test_a_file_that_is_gone_leaves_everything_as_it_was(
    tmp_path: Path, upstream: ScriptedUpstream, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "config.toml").write_text(text(upstream.url))
    with serving(tmp_path, *arguments) as gateway:
        (tmp_path / "config.toml").unlink()
        gateway.process.send_signal(signal.SIGHUP)
        await logged(gateway, STAYS)
        assert "ERROR config.toml: cannot be read: " in gateway.log
        assert await status(gateway.url, "key-of-then") == 200
        assert gateway.stop() == 0
    assert not (tmp_path / "gateway.db.key").exists()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_signal_that_comes_during_the_start_is_not_lost(
    tmp_path: Path, upstream: ScriptedUpstream, workers: int
) -> None:
    (tmp_path / "config.toml").write_text(text(upstream.url))
    async with starting(tmp_path, workers) as process:
        if workers > 1:
            await until(lambda: len(_children(process.pid)) == workers)
            # As `pkill -HUP` would. They are not even Python yet, and have the settings of then.
            for child in _children(process.pid):
                os.kill(child, signal.SIGHUP)
        (tmp_path / "config.toml").write_text(text(upstream.url, key="key-of-now"))
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        line = (await soon(process.stdout.readline())).decode()
        url = line.removeprefix("listening on ").strip()
        await all_workers_answer(url, "key-of-now", 200)
        await all_workers_answer(url, "key-of-then", 401)
        process.terminate()
        assert await soon(process.wait()) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stop_during_the_start_ends_with_status_0_and_leaves_nothing_behind(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    async with starting(tmp_path, workers, TMPDIR=str(scratch)) as process:
        process.send_signal(number)
        assert await soon(process.wait()) == 0
    if workers > 1:
        async with starting(tmp_path, workers, TMPDIR=str(scratch)) as process:
            await until(lambda: len(_children(process.pid)) > 0)
            process.send_signal(number)
            assert await soon(process.wait()) == 0
    assert list(scratch.iterdir()) == []
    assert not re.search("Traceback|ended with status", (tmp_path / "stderr.txt").read_text())
    kept = ["gateway.db", "gateway.db.key", "gateway.db.session", "scratch", "stderr.txt"]
    assert sorted(file.name for file in tmp_path.iterdir()) == kept


@asynccontextmanager
async def starting(folder: Path, workers: int, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A `gateway serve` that is still loading, from the moment at which a signal does not just end it any more."""
    with (folder / "stderr.txt").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *GATEWAY, "serve", "--port", "0", "--workers", str(workers), cwd=folder, env=environment(**env),
            stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    try:
        await until(lambda: _blocks(process.pid, signal.SIGTERM))
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until(holds: Callable[[], bool]) -> None:
    """Waits for what must come."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.001)


def _blocks(pid: int, number: signal.Signals) -> bool:
    found = re.search(r"^SigBlk:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return bool(int(found[1], 16) >> (number - 1) & 1)


async def test_what_cannot_be_taken_over_whole_is_not_taken_over_at_all(
    tmp_path: Path, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    path = f"[store]\npath = '{tmp_path}/gateway.db'\n[server]\nport = 0\n"
    before = config.parse(path + text(upstream.url), "test.toml", {})
    certificate = tmp_path / "ca.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=x"
    await asyncio.to_thread(subprocess.run, made.split(), cwd=tmp_path, check=True, capture_output=True)
    first = f"[[upstreams]]\nname = 'first'\nbase_url = 'https://127.0.0.1'\nca_file = '{certificate}'\n"
    after = config.parse(path + first + text(other.url, key="key-of-now"), "test.toml", {})
    certificate.unlink()
    async with opened(before) as gateway, served(before, gateway) as url:
        with pytest.raises(FileNotFoundError):
            gateway.reload(after)
        assert [await status(url, key) for key in ("key-of-then", "key-of-now")] == [200, 401]
    assert [request.headers["Authorization"] for request in upstream.requests] == ["Bearer secret-of-then"]
    assert other.requests == []


async def test_an_upstream_that_stays_keeps_its_connection(
    tmp_path: Path, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    path = f"[store]\npath = '{tmp_path}/gateway.db'\n[server]\nport = 0\n"

    def read(more: str) -> config.Settings:
        return config.parse(path + more, "test.toml", {})

    before = read(text(upstream.url))
    async with opened(before) as gateway, served(before, gateway) as url:
        assert await status(url, "key-of-then") == 200
        second = f'[[upstreams]]\nname = "second"\nbase_url = "{other.url}/v1"\n'
        gateway.reload(read(text(upstream.url, key="key-of-now", usd=3) + second))
        assert await status(url, "key-of-now") == 200
        assert [request.connection for request in upstream.requests] == [1, 1]

        gateway.reload(read(text(upstream.url, secret="secret-of-now")))
        assert await status(url, "key-of-then") == 200
        assert [request.connection for request in upstream.requests] == [1, 1, 2]
        assert upstream.requests[-1].headers["Authorization"] == "Bearer secret-of-now"


async def test_the_connections_of_an_upstream_that_is_taken_out_are_closed_behind_its_last_call(
    tmp_path: Path, upstream: ScriptedUpstream, other: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.client._IDLE_KEPT_S", 3600)
    slow = Slow()
    upstream.play = slow.play
    path = f"[store]\npath = '{tmp_path}/gateway.db'\n[server]\nport = 0\n"
    before = config.parse(path + text(upstream.url), "test.toml", {})
    async with opened(before) as gateway, served(before, gateway) as url, raw_client(url, "key-of-then") as client:
        await client.post(ROUTE, json.dumps(UNTOLD).encode())
        await client.read_head()
        gateway.reload(config.parse(path + text(other.url), "test.toml", {}))
        gateway.reload(config.parse(path + text(other.url, usd=2), "test.toml", {}))
        assert await status(url, "key-of-then") == 200
        assert not slow.left.is_set()
        slow.go_on.set()
        await client.read_until(b"0\r\n\r\n")
        await soon(slow.left.wait())
        assert [request.connection for request in other.requests] == [1]


async def test_the_limits_of_a_key_are_those_of_the_new_file(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    path = f"[store]\npath = '{tmp_path}/gateway.db'\n[server]\nport = 0\n"
    before = config.parse(path + text(upstream.url), "test.toml", {})
    limited = text(upstream.url).replace('name = "team"', 'name = "team"\nrate_limit = 1')
    async with opened(before) as gateway, served(before, gateway) as url:
        assert await status(url, "key-of-then") == 200
        gateway.reload(config.parse(path + limited, "test.toml", {}))
        assert [await status(url, "key-of-then") for _ in range(2)] == [200, 429]
        gateway.reload(before)
        assert await status(url, "key-of-then") == 200


async def test_models_are_listed_as_the_new_file_says(
    tmp_path: Path, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    def listing(name: str) -> Callable[[Received, Wire], asyncio.Future[None]]:
        return lambda received, wire: asyncio.ensure_future(wire.json({"data": [{"id": name}]}))

    upstream.play, other.play = listing("gpt-then"), listing("gpt-now")
    path = f"[store]\npath = '{tmp_path}/gateway.db'\n[server]\nport = 0\n"
    before = config.parse(path + text(upstream.url), "test.toml", {})
    async with opened(before) as gateway, served(before, gateway) as url:
        headers = {"Authorization": "Bearer key-of-then"}
        async with aiohttp.ClientSession(url, headers=headers) as session:

            async def models() -> list[str]:
                async with session.get("/v1/models") as response:
                    return [model["id"] for model in (await response.json())["data"]]

            assert await models() == ["gpt-then"]
            gateway.reload(config.parse(path + text(other.url), "test.toml", {}))
            assert await models() == ["gpt-now"]


async def test_a_gateway_that_is_closed_while_an_upstream_retires_closes_that_too(
    tmp_path: Path, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    slow = Slow()
    upstream.play = slow.play
    path = f"[store]\npath = '{tmp_path}/gateway.db'\n[server]\nport = 0\ndrain_s = 0\n"
    before = config.parse(path + text(upstream.url), "test.toml", {})
    async with opened(before) as gateway, served(before, gateway) as url, raw_client(url, "key-of-then") as client:
        await client.post(ROUTE, json.dumps(UNTOLD).encode())
        await client.read_head()
        gateway.reload(config.parse(path + text(other.url), "test.toml", {}))
        assert await status(url, "key-of-then") == 200
    slow.go_on.set()
    await soon(slow.left.wait())
    assert [request.json() for request in other.requests] == [CHAT]
