"""The commands, as processes."""

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import openai
import pytest

from gateway import __version__, config
from gateway.app import local_key
from tests.processes import GATEWAY, Process, environment, run, serving

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}


def span_rows(folder: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / "gateway.db") as db:
        return db.execute("SELECT model, status, prompt_tokens, completion_tokens FROM spans").fetchall()


def test_help_names_every_command_and_flag(tmp_path: Path) -> None:
    shown = run("--help", folder=tmp_path)
    assert shown.returncode == 0
    for command, flags in {
        "serve": ["--config", "--host", "--port", "--workers"],
        "check": ["--config"],
        "demo": ["--port", "--once"],
    }.items():
        assert re.search(rf"^ +{command} ", shown.stdout, re.MULTILINE)
        text = run(command, "--help", folder=tmp_path).stdout
        assert all(flag in text for flag in flags)
    assert run("--version", folder=tmp_path).stdout == f"gateway {__version__}\n"


def test_check_prints_the_settings_or_every_mistake(tmp_path: Path) -> None:
    good = run("check", folder=tmp_path)
    assert (good.returncode, good.stderr) == (0, "")
    assert 'name = "echo"' in good.stdout
    (tmp_path / "config.toml").write_text("[server]\nprot = 1\nworkers = 0\n")
    bad = run("check", folder=tmp_path)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert len(bad.stderr.splitlines()) == 2
    assert run("serve", folder=tmp_path).stderr == bad.stderr


def test_serve_without_a_config_mints_a_key_and_answers_the_openai_sdk(tmp_path: Path) -> None:
    with serving(tmp_path) as gateway:
        assert f"is kept in gateway.db.key: {gateway.key}\n" in gateway.log
        assert f'client = OpenAI(base_url="{gateway.url}/v1", api_key="{gateway.key}")' in gateway.log
        for name in ("gateway.db", "gateway.db.key", "gateway.db.session"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
            answer = client.chat.completions.create(
                model="echo", messages=[{"role": "user", "content": "one two three"}]
            )
        assert answer.choices[0].message.content == "one two three"
        assert gateway.stop() == 0
    assert span_rows(tmp_path) == [("echo", "success", 3, 3)]
    with serving(tmp_path) as again:
        assert again.log.count(again.key) == 2, "a later start names the file only"
        told = [line for line in again.log.splitlines() if "gateway.db.key" in line]
        assert told[-1] == "The key is in gateway.db.key."


@pytest.mark.parametrize("workers", [1, 2])
async def test_on_a_terminal_serve_says_a_link_that_signs_in_and_elsewhere_it_does_not(
    tmp_path: Path, workers: int
) -> None:
    with serving(tmp_path, "--workers", str(workers)) as logged:
        assert [line for line in logged.log_lines if "Dashboard" in line] == [f"Dashboard: {logged.url}/"]
        assert logged.stop() == 0
        assert "#" not in logged.log
    terminal, stderr = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *GATEWAY, "serve", "--port", "0", "--host", "0.0.0.0", "--workers", str(workers), cwd=tmp_path,
        env=environment(), stdout=asyncio.subprocess.PIPE, stderr=stderr,
    )  # fmt: skip
    os.close(stderr)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            ready = (await process.stdout.readline()).decode()
        url = ready.strip().removeprefix("listening on ").replace("0.0.0.0", "127.0.0.1")
        line = rf"^Dashboard \(opens once, within an hour\): {re.escape(url)}/login#link=(\S+)\r$"
        told = ""
        # It is said after the address, line by line.
        while not (found := re.findall(line, told, re.MULTILINE)):
            told += (await asyncio.to_thread(os.read, terminal, 100_000)).decode()
        assert [await _sign_in(url, found[0]) for _ in range(4)] == [303, 401, 401, 401]
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
            assert await process.stdout.read() == b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(terminal)


async def _sign_in(url: str, link: str) -> int:
    """Opens a link on a connection of its own: any of the workers may get it."""
    async with (
        aiohttp.ClientSession(url) as session,
        session.post("/login", data={"link": link}, allow_redirects=False) as response,
    ):
        return response.status


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        first = ""
        for workers in ("1", "2"):
            ended = run("serve", "--port", port, "--workers", workers, folder=tmp_path)
            first = first or ended.stderr
            assert ended.returncode == 1
            told = f"Cannot listen on 127.0.0.1:{port}: Address already in use. Try another --host or --port."
            assert ended.stderr.splitlines()[-1] == told
    assert (tmp_path / "gateway.db.key").read_text().strip() in first


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_text("no database at all, but longer than a header of SQLite has to be" * 20)
    ended = run("serve", "--port", "0", folder=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "The database gateway.db cannot be used: file is not a database."


async def test_workers_do_not_join_those_of_another_gateway(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with serving(tmp_path, "--workers", "2") as gateway:
        port = gateway.url.rsplit(":", 1)[1]
        ended = run("serve", "--port", port, "--workers", "2", folder=tmp_path / "other")
    assert ended.returncode == 1
    assert "Address already in use" in ended.stderr


def test_an_empty_key_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "gateway.db.key").touch()
    ended = run("serve", "--port", "0", folder=tmp_path)
    assert ended.returncode == 1
    assert "The key file gateway.db.key is empty" in ended.stderr


def test_what_a_kill_left_of_a_key_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f"gateway.db.key.{os.getpid()}").touch()
    made = local_key(config.parse(f"[store]\npath = '{tmp_path}/gateway.db'", "test.toml", {}))
    assert made is not None and made.is_new
    assert (tmp_path / "gateway.db.key").read_text() == f"{made.key}\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_the_log_tells_the_time_of_each_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    with serving(tmp_path) as gateway:
        (tmp_path / "config.toml").write_text("[")
        gateway.process.send_signal(signal.SIGHUP)
        assert gateway.stop() == 0
        lines = gateway.log.splitlines()[-2:]
    assert [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (?=ERROR )", "TIME ", line) for line in lines] == [
        "TIME ERROR config.toml: not valid TOML: Invalid initial character for a key part (at end of document)",
        "TIME ERROR Nothing was reloaded: the old settings stay in force.",
    ]


def test_the_audit_of_an_empty_database_and_of_a_range_that_ends_before_it_starts(tmp_path: Path) -> None:
    with serving(tmp_path) as gateway:
        assert gateway.stop() == 0
    nothing = run("audit", folder=tmp_path)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "Nothing has come in yet.\n", "")
    assert run("audit", "--json", folder=tmp_path).stdout == "{}\n"
    turned = run("audit", "--start", "2026-01-02", "--end", "2026-01-01", folder=tmp_path)
    assert (turned.returncode, turned.stdout, turned.stderr) == (2, "", "--end must not be before --start.\n")


@pytest.mark.parametrize("command", ["audit", "check"])
def test_who_reads_no_further_is_no_error(tmp_path: Path, command: str) -> None:
    with serving(tmp_path) as gateway:
        assert gateway.stop() == 0
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [*GATEWAY, command], cwd=tmp_path, env=environment(PYTHONUNBUFFERED="1"), stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_lets_a_stream_finish_and_refuses_new_connections(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path, "--workers", str(workers)) as gateway:
        headers = {"Authorization": f"Bearer {gateway.key}"}
        words = " ".join(str(number) for number in range(150))
        body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": words}]}
        async with aiohttp.ClientSession(gateway.url, headers=headers) as session:
            async with session.post("/v1/chat/completions", json=body) as response:
                first = await response.content.readuntil(b"\n\n")
                gateway.process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(30):
                    await _refused(gateway.url)
                rest = await response.content.read()
            text = (first + rest).decode()
        assert text.endswith("data: [DONE]\n\n")
        said = [json.loads(line[6:])["choices"][0]["delta"] for line in text.splitlines() if line.startswith("data: {")]
        assert "".join(delta.get("content") or "" for delta in said) == words
        assert await asyncio.to_thread(gateway.process.wait, 60) == 0
    assert span_rows(tmp_path) == [("echo", "success", 150, 150)]


async def test_sigterm_to_all_processes_at_once_stops_them_as_gently(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as gateway:
        async with _long_stream(gateway) as response:
            for process in (*_child_ids(gateway.process.pid), gateway.process.pid):
                os.kill(process, signal.SIGTERM)
            await _refused(gateway.url)
            for child in _child_ids(gateway.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGTERM)
            assert (await response.content.read()).endswith(b"data: [DONE]\n\n")
        assert await asyncio.to_thread(gateway.process.wait, 60) == 0
    assert span_rows(tmp_path) == [("echo", "success", 190, 190)]


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_call_that_outlasts_drain_s_is_told_from_one_whose_client_left(tmp_path: Path, workers: int) -> None:
    (tmp_path / "config.toml").write_text("[server]\ndrain_s = 0.05\n")
    with serving(tmp_path, "--workers", str(workers)) as gateway:
        async with _long_stream(gateway) as response:
            gateway.process.send_signal(signal.SIGTERM)
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()
        assert await asyncio.to_thread(gateway.process.wait, 60) == 0
    with sqlite3.connect(tmp_path / "gateway.db") as db:
        ended = db.execute("SELECT status, status_code, error_code FROM spans").fetchall()
    assert ended == [("failed", 503, "gateway_stopped")]


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_second_signal_ends_at_once_and_leaves_nobody_behind(tmp_path: Path, workers: int) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with serving(tmp_path, "--workers", str(workers), TMPDIR=str(scratch)) as gateway:
        async with _long_stream(gateway) as response:
            children = _child_ids(gateway.process.pid)
            gateway.process.send_signal(signal.SIGTERM)
            await _refused(gateway.url)
            gateway.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(gateway.process.wait, 60) == 128 + signal.SIGTERM
            with pytest.raises(aiohttp.ClientError):
                await response.content.read()
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("nobody_reads", "workers"),
    [(">&-", 1), ("2>&-", 1), ("<&-", 1), ("> /dev/full", 1), ("2>&1 | true", 1), ("<&- >&- 2>&-", 2)],
)
async def test_serve_works_and_ends_where_nobody_reads_what_it_says(
    tmp_path: Path, nobody_reads: str, workers: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = shlex.join([*GATEWAY, "serve", "--port", str(port), "--workers", str(workers)])
    # What is not buffered is not lost either when Python ends.
    env = {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f"set -o pipefail; (echo $BASHPID > pid; exec {command}) {nobody_reads}",
        cwd=tmp_path, env=env,
    )  # fmt: skip
    async with asyncio.timeout(60), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get("/ready") as response:
                    assert response.status == 200
                    break
            await asyncio.sleep(0.01)
        headers = {"Authorization": f"Bearer {(tmp_path / 'gateway.db.key').read_text().strip()}"}
        async with session.post("/v1/chat/completions", json=CHAT, headers=headers) as response:
            assert response.status == 200
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
        assert await process.wait() == 0
    assert span_rows(tmp_path) == [("echo", "success", 3, 3)]


@asynccontextmanager
async def _long_stream(gateway: Process) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream that has begun and goes on for about two seconds."""
    words = " ".join(str(number) for number in range(190))
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": words}]}
    async with (
        aiohttp.ClientSession(gateway.url, headers={"Authorization": f"Bearer {gateway.key}"}) as session,
        session.post("/v1/chat/completions", json=body) as response,
    ):
        await response.content.readuntil(b"\n\n")
        yield response


async def _refused(url: str) -> None:
    """Waits until a new connection is refused."""
    host, port = url.removeprefix("http://").split(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionError:
            return
        writer.close()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_span_is_on_disk_when_its_201_arrives(tmp_path: Path, workers: int) -> None:
    """Kills the process with SIGKILL right behind the 201, again and again on the same file."""
    posted: list[str] = []
    for _ in range(5):
        with serving(tmp_path, "--workers", str(workers)) as gateway:
            headers = {"Authorization": f"Bearer {gateway.key}"}
            async with aiohttp.ClientSession(gateway.url, headers=headers) as session:
                span = {"model": "m", "log_type": "tool", "input": "x" * 2000}
                async with session.post("/api/request-logs/", json=span) as response:
                    assert response.status == 201
                    body = await response.read()
                gateway.kill()
                posted.append(json.loads(body)["unique_id"])
    with sqlite3.connect(tmp_path / "gateway.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        stored = [unique_id for (unique_id,) in db.execute("SELECT unique_id FROM spans")]
    assert sorted(stored) == sorted(posted)


async def test_a_reply_read_to_its_end_has_its_span_on_disk(tmp_path: Path) -> None:
    # However slow this machine is.
    (tmp_path / "config.toml").write_text("[store]\ncommit_wait_ms = 60000\n")
    seen: list[str] = []
    for stream in (False, True) * 3:
        with serving(tmp_path) as gateway:
            headers = {"Authorization": f"Bearer {gateway.key}"}
            async with aiohttp.ClientSession(gateway.url, headers=headers) as session:
                async with session.post("/v1/chat/completions", json={**CHAT, "stream": stream}) as response:
                    await response.read()
                gateway.kill()
                seen.append(response.headers["X-Respan-Log-Id"])
    with sqlite3.connect(tmp_path / "gateway.db") as db:
        stored = dict(db.execute("SELECT unique_id, status FROM spans").fetchall())
    assert stored == dict.fromkeys(seen, "success")


async def test_workers_share_the_port_and_the_metrics_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as gateway:
        headers = {"Authorization": f"Bearer {gateway.key}"}
        answered = 0
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(force_close=True)) as session:
            children = await _children(gateway.process.pid, 2)
            for _ in range(20):
                async with session.post(f"{gateway.url}/v1/chat/completions", json=CHAT) as response:
                    assert response.status == 200
                    # One who hangs up after the head has left before the end.
                    await response.read()
                    answered += 1
            async with session.get(f"{gateway.url}/metrics") as response:
                text = await response.text()
            assert f'gateway_calls_total{{outcome="success",upstream="echo"}} {answered}.0' in text
            os.kill(children[0], signal.SIGKILL)
            replaced = await _children(gateway.process.pid, 2, without=children[0])
            assert children[1] in replaced
        assert await asyncio.to_thread(gateway.stop) == 0
    assert len(span_rows(tmp_path)) == answered
    assert "A worker ended with status -9; starting another." in (tmp_path / "stderr.txt").read_text()


async def test_a_stop_while_a_dead_worker_is_replaced_ends_the_new_one_too(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as gateway:
        children = await _children(gateway.process.pid, 2)
        for child in children:
            os.kill(child, signal.SIGKILL)
        async with asyncio.timeout(60):
            while not set(_child_ids(gateway.process.pid)) - set(children):
                await asyncio.sleep(0)
        assert await asyncio.to_thread(gateway.stop) == 0


async def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as gateway:
        children = await _children(gateway.process.pid, 2)
        gateway.kill()
        async with asyncio.timeout(60):
            while any(Path(f"/proc/{child}").exists() for child in children):
                await asyncio.sleep(0.01)


async def test_the_metrics_of_a_killed_gateway_are_removed_by_the_next_and_those_of_a_running_one_are_not(
    tmp_path: Path,
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    folders = [tmp_path / name for name in ("killed", "running", "next")]
    for folder in folders:
        folder.mkdir()

    def start(folder: Path) -> AbstractContextManager[Process]:
        return serving(folder, "--workers", "2", TMPDIR=str(scratch))

    with start(folders[0]) as killed:
        (left,) = scratch.iterdir()
        children = await _children(killed.process.pid, 2)
        # Its workers go on for as long as their calls do, and use the folder.
        async with _long_stream(killed) as response:
            killed.kill()
            with start(folders[1]) as running:
                assert left in scratch.iterdir()
                assert await asyncio.to_thread(running.stop) == 0
            assert (await response.content.read()).endswith(b"data: [DONE]\n\n")
        async with asyncio.timeout(60):
            while any(Path(f"/proc/{child}").exists() for child in children):
                await asyncio.sleep(0.01)
    with start(folders[1]) as running:
        assert left not in scratch.iterdir()
        (used,) = scratch.iterdir()
        with start(folders[2]) as another:
            assert used in scratch.iterdir()
            assert await asyncio.to_thread(another.stop) == 0
        assert list(scratch.iterdir()) == [used]
        assert await asyncio.to_thread(running.stop) == 0
    assert list(scratch.iterdir()) == []


def _child_ids(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


async def _children(parent: int, number: int, without: int | None = None) -> list[int]:
    """The processes of a parent, once there are so many."""
    async with asyncio.timeout(60):
        while True:
            found = _child_ids(parent)
            if len(found) == number and without not in found:
                return found
            await asyncio.sleep(0.01)


def test_demo_shows_its_spans(tmp_path: Path) -> None:
    shown = run("demo", "--once", folder=tmp_path, COLUMNS="160")
    assert (shown.returncode, shown.stderr) == (0, "")
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert sum(row[:2] == ["echo", "success"] for row in rows) == 3
    assert sum(row[1:3] == ["failed", "404"] for row in rows) == 1
    for name in ("plan a trip", "look up the…", "advise", "get_weather(…)"):
        assert name in shown.stdout
    assert list(tmp_path.iterdir()) == [], "the demo leaves nothing behind"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
async def test_demo_goes_on_serving_and_says_how_to_use_it(tmp_path: Path, number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *GATEWAY, "demo", "--port", "0", cwd=tmp_path, env=environment(COLUMNS="160", TMPDIR=str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    text = ""
    async with asyncio.timeout(60):
        while "listening on" not in text:
            text += (await process.stdout.readline()).decode()
    match = re.search(r'base_url="(.*)/v1", api_key="(.*)"', text)
    assert match
    async with openai.AsyncOpenAI(base_url=f"{match[1]}/v1", api_key=match[2], max_retries=0) as client:
        answer = await client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "hi"
    link = re.search(rf"^Dashboard .*: {re.escape(match[1])}/login#link=(\S+)$", text, re.MULTILINE)
    assert link
    assert [await _sign_in(match[1], link[1]) for _ in range(2)] == [303, 401]
    process.send_signal(number)
    async with asyncio.timeout(60):
        assert await process.wait() == 0
    assert list(tmp_path.iterdir()) == [], "the demo leaves nothing behind"
