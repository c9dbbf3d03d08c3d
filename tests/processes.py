"""The gateway as a process of its own, started the way a user starts it."""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

GATEWAY = [sys.executable, "-m", "gateway"]


# What changes the defaults of the gateway, or of an SDK.
_SETTINGS = ("OPENAI_", "OTEL_", "RESPAN_", "TRACELOOP_")


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would change the defaults of what is run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    return {**kept, "PYTHONPATH": str(Path(__file__).parent.parent), **more}


def run(*arguments: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        [*GATEWAY, *arguments], cwd=folder, env=environment(**env), capture_output=True, text=True, timeout=120
    )


def kill(ids: Iterable[int]) -> None:
    """SIGKILL to all of these processes, as much at once as can be; returns when they are no more."""
    ends = [os.pidfd_open(pid) for pid in ids]
    for end in ends:
        signal.pidfd_send_signal(end, signal.SIGKILL)
    for end in ends:
        select.select([end], [], [], 60)
        os.close(end)


class Process:
    """A running `gateway serve`."""

    def __init__(self, folder: Path, *arguments: str, **env: str) -> None:
        self.folder = folder
        self._log = (folder / "stderr.txt").open("ab")
        self.process = subprocess.Popen(
            [*GATEWAY, "serve", "--port", "0", *arguments],
            cwd=folder,
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), f"{line!r}\n{self.log}"
        self.url = line.removeprefix("listening on ").strip()
        self._has_workers = "--workers" in arguments

    @property
    def log(self) -> str:
        return (self.folder / "stderr.txt").read_text()

    @property
    def log_lines(self) -> list[str]:
        """The log without the times at which its lines were written."""
        return [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ", "", line) for line in self.log.splitlines()]

    @property
    def key(self) -> str:
        return (self.folder / "gateway.db.key").read_text().strip()

    def workers(self) -> list[int]:
        """The ids of the processes that serve: those that it started with `--workers`, else its own."""
        pid = self.process.pid
        if not self._has_workers:
            return [pid]
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill_all(self) -> None:
        """SIGKILL to this process and its workers."""
        kill(dict.fromkeys([self.process.pid, *self.workers()]))
        self.process.wait(timeout=60)

    def kill(self) -> None:
        """SIGKILL: nothing in the process gets to run any more."""
        self.process.kill()
        self.process.wait(timeout=60)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def close(self) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


@contextmanager
def serving(folder: Path, *arguments: str, **env: str) -> Iterator[Process]:
    """A running gateway with its database and key in `folder`; killed at the end if it still runs."""
    process = Process(folder, *arguments, **env)
    try:
        yield process
    finally:
        process.close()
