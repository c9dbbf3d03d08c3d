"""Several processes on one port: starts them, replaces one that dies, ends them together."""

import asyncio
import contextlib
import fcntl
import logging
import os
import pickle
import shutil
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, Signals
from typing import NamedTuple

from prometheus_client import multiprocess

from gateway import signals
from gateway.config import Settings
from gateway.errors import ListenError
from gateway.reload import Configuration
from gateway.store import sqlite

log = logging.getLogger(__name__)

# Set for a worker: it shares its port, gets its settings from its parent, and ends with it.
WORKER_ENV = "GATEWAY_WORKER"
# Where prometheus-client keeps the numbers of all workers.
METRICS_ENV = "PROMETHEUS_MULTIPROC_DIR"

_COMMAND = [sys.executable, "-m", "gateway", "serve"]
_RESTART_AFTER_S = 0.5
_METRICS_PREFIX = "gateway-metrics-"
# Locked while the folder that it is in is used.
_LOCK_NAME = "lock"
# Before each of the settings that a worker is sent: their length.
_LENGTH_BYTES = 8


class MetricsFolder(NamedTuple):
    """Where the workers keep their numbers, and the file by which it is locked."""

    path: str
    lock: int


class Supervisor:
    """Runs `[server] workers` processes of `gateway serve` that share the port (SO_REUSEPORT).

    A worker reads no configuration: settings reach it through a pipe, the first when it starts, then whenever others
    are in force. So all of them go by the same, also one that takes the place of another while the file is wrong.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._stop = asyncio.Event()
        # What the workers were sent to end them.
        self._sent: Signals | None = None
        self._status = 0
        self._port = 0
        self._processes: dict[Process, asyncio.StreamWriter] = {}

    async def run(self, announce: Callable[[str], None]) -> int:
        """Until SIGTERM or SIGINT; gives the exit status. Announces the URL once, when every worker is ready.

        A second signal kills. SIGHUP reloads the configuration.
        """
        loop = asyncio.get_running_loop()
        server = self._configuration.settings.server
        # By workers it is opened only: one that comes after the file was deleted must not begin another.
        sqlite.create(self._configuration.settings.store.path)
        with (
            signals.handled(loop, self._on_signal, SIGTERM, SIGINT, SIGHUP),
            _reserved(server.host, server.port) as self._port,
            _metrics_folder() as metrics,
        ):
            urls = [loop.create_future() for _ in range(server.workers)]
            keeping = [asyncio.create_task(self._keep(metrics, url)) for url in urls]
            ready = asyncio.create_task(asyncio.wait(urls))
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait((ready, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not self._stop.is_set():
                announce(urls[0].result())
                await self._stop.wait()
            ready.cancel()
            if self._sent is None:
                self._end_workers(SIGTERM)
            await asyncio.gather(*keeping)
            sqlite.tidy(self._configuration.settings.store.path)
        return self._status

    async def _keep(self, metrics: MetricsFolder, url: asyncio.Future[str]) -> None:
        """Keeps one worker running. The future gets its URL; where it ends before it listens, all are stopped."""
        while not self._stop.is_set():
            process = await self._start(metrics)
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode().strip()
            if line and not url.done():
                url.set_result(line.removeprefix("listening on "))
            status = await process.wait()
            del self._processes[process]
            multiprocess.mark_process_dead(process.pid, metrics.path)  # type: ignore[no-untyped-call]
            if status == 1 and self._stop.is_set():
                self._status = self._status or 1
            if not url.done() and not self._stop.is_set():
                self._status = 1
                self._stop.set()
            if not self._stop.is_set():
                log.error("A worker ended with status %s; starting another.", status)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _RESTART_AFTER_S)

    async def _start(self, metrics: MetricsFolder) -> Process:
        env = {**os.environ, WORKER_ENV: "1", METRICS_ENV: metrics.path}
        # The worker inherits that signals are held, and lets them through when it can act on them. Nothing is awaited
        # before it is there. A session of its own: Ctrl-C reaches the parent alone, which then tells its workers once.
        signals.hold()
        try:
            process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                env=env,
                stdin=PIPE,
                stdout=PIPE,
                start_new_session=True,
                # Where this process is killed, its workers still end their calls, and count them.
                pass_fds=(metrics.lock,),
            )
        finally:
            signals.release()
        assert process.stdin is not None
        self._processes[process] = process.stdin
        self._send(process.stdin, self._configuration.settings)
        if self._sent is not None:
            # It came while this one was being started, and has passed it by.
            _send_signal(process, self._sent)
        return process

    def _send(self, pipe: asyncio.StreamWriter, settings: Settings) -> None:
        server = settings.server.model_copy(update={"port": self._port})
        data = pickle.dumps(settings.model_copy(update={"server": server}))
        pipe.write(len(data).to_bytes(_LENGTH_BYTES) + data)

    def _on_signal(self, number: Signals) -> None:
        if number == SIGHUP:
            self._configuration.reload(self._tell_workers)
        elif not self._stop.is_set():
            self._stop.set()
        else:
            self._status = 128 + number
            self._end_workers(SIGKILL)

    def _tell_workers(self, settings: Settings) -> None:
        for pipe in self._processes.values():
            self._send(pipe, settings)

    def _end_workers(self, number: Signals) -> None:
        self._sent = number
        for process in self._processes:
            _send_signal(process, number)


def _send_signal(process: Process, number: Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


async def settings_from_parent() -> AsyncIterator[Settings]:
    """The settings that the process that started this worker has in force, now and later; ends when it is gone."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    with contextlib.closing(transport), contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
            yield pickle.loads(await reader.readexactly(length))


@contextlib.contextmanager
def _metrics_folder() -> Iterator[MetricsFolder]:
    """A folder of its own; those that killed processes have left are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_METRICS_PREFIX}*"):
        _remove_unused(left)
    with tempfile.TemporaryDirectory(prefix=_METRICS_PREFIX) as folder:
        draft = Path(folder) / "draft"
        with draft.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Whoever finds it by its name finds it locked.
            draft.rename(draft.with_name(_LOCK_NAME))
            yield MetricsFolder(folder, lock.fileno())


def _remove_unused(folder: Path) -> None:
    """Removes the folder if it is ours and nobody holds its lock."""
    with contextlib.suppress(OSError):
        if folder.lstat().st_uid != os.getuid():
            return
        with (folder / _LOCK_NAME).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Keeps a port for processes that share it, and picks a free one for 0."""
    try:
        # Others who share a port among themselves would be joined unnoticed, so the first to ask does not share.
        with _bound(host, port, shared=False) as probe:
            port = probe.getsockname()[1]
        kept = _bound(host, port, shared=True)
    except OSError as error:
        raise ListenError(f"Cannot listen on {host}:{port}: {error.strerror}. Try another --host or --port.") from error
    with kept:
        yield port


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
