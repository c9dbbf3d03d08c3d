"""Several processes on one port: starts them, replaces one that dies, ends them together."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import multiprocess

from gateway.config import Settings
from gateway.errors import ListenError

log = logging.getLogger(__name__)

# Set for a worker, so that it shares its port and ends with its parent.
WORKER_ENV = "GATEWAY_WORKER"
# Where prometheus-client keeps the numbers of all workers.
METRICS_ENV = "PROMETHEUS_MULTIPROC_DIR"

_RESTART_AFTER_S = 0.5


class Supervisor:
    """Runs `settings.server.workers` processes of `gateway serve` that share the port (SO_REUSEPORT)."""

    def __init__(self, settings: Settings, config: Path | None) -> None:
        self._server = settings.server
        self._config = config
        self._stop = asyncio.Event()
        self._processes: set[Process] = set()

    async def run(self, announce: Callable[[str], None]) -> int:
        """Until SIGTERM or SIGINT. Announces the URL once, when every worker is ready. A second signal kills."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        with _reserved(self._server.host, self._server.port) as port, _metrics_folder() as metrics:
            command = self._command(port)
            env = {**os.environ, WORKER_ENV: "1", METRICS_ENV: metrics}
            urls = [loop.create_future() for _ in range(self._server.workers)]
            keeping = [asyncio.create_task(self._keep(command, env, url)) for url in urls]
            await asyncio.wait(urls, return_when=asyncio.FIRST_EXCEPTION)
            failed = [url for url in urls if not url.done() or url.cancelled()]
            if not failed:
                announce(urls[0].result())
                await self._stop.wait()
            self._stop.set()
            self._terminate()
            await asyncio.gather(*keeping)
        return 1 if failed else 0

    def _command(self, port: int) -> list[str]:
        config = ["--config", str(self._config)] if self._config else []
        return [sys.executable, "-m", "gateway", "serve", *config, "--host", self._server.host, "--port", str(port)]

    async def _keep(self, command: list[str], env: dict[str, str], url: asyncio.Future[str]) -> None:
        """Keeps one worker running. The future gets its URL, or is cancelled if it ends before it listens."""
        while not self._stop.is_set():
            # A session of its own: Ctrl-C reaches the parent alone, which then tells its workers once.
            process = await asyncio.create_subprocess_exec(
                *command, env=env, stdin=PIPE, stdout=PIPE, start_new_session=True
            )
            self._processes.add(process)
            if self._stop.is_set():
                # The stop came while this one was being started, and has passed it by.
                process.terminate()
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode().strip()
            if line and not url.done():
                url.set_result(line.removeprefix("listening on "))
            status = await process.wait()
            self._processes.discard(process)
            multiprocess.mark_process_dead(process.pid, env[METRICS_ENV])  # type: ignore[no-untyped-call]
            if not url.done():
                url.cancel()
                return
            if not self._stop.is_set():
                log.error("A worker ended with status %s; starting another.", status)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _RESTART_AFTER_S)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for process in self._processes:
                process.kill()
        self._stop.set()

    def _terminate(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()


async def parent_gone(stop: asyncio.Event) -> None:
    """Returns when `stop` is set or when the process that started this worker is gone: its end of the pipe closes."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    waiting = [asyncio.create_task(reader.read()), asyncio.create_task(stop.wait())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    transport.close()


def _metrics_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="gateway-metrics-")


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
