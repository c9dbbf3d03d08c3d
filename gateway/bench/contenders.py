"""What is measured: each contender is a process (or several) that serves chat completions in front of the upstream."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from gateway.errors import GatewayError
from gateway.store.sqlite import connect_reader

HOST = "127.0.0.1"
KEY = "bench-key-of-the-gateway"
_STARTS_WITHIN_S = 60.0
_ENDS_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.01
_HAS_PROC = Path("/proc/self/stat").exists()
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_CONFIG = """
[server]
port = 0
workers = {workers}

[store]
path = {database}

[[keys]]
name = "bench"
key = "{key}"

[[upstreams]]
name = "bench"
base_url = "{upstream}/v1"
api_key = "sk-bench"

[prices."bench*"]
prompt = 0.15
completion = 0.60
"""


class BenchError(GatewayError):
    """The benchmark cannot go on; says why."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the contender has, which two workers have, and which upstream and load; None where the system has no
    say in that."""

    contender: frozenset[int] | None = None
    two: frozenset[int] | None = None
    others: frozenset[int] | None = None

    def told(self) -> str:
        """In a sentence."""
        if self.contender is None or self.others is None:
            return "nothing is pinned: this system has one core, or does not pin"
        return f"the contender on core {_list(self.contender)}, upstream and load on {_list(self.others)}"

    def two_told(self) -> str:
        """What two workers have, in a few words."""
        if self.two is None or self.others is None:
            return "nothing is pinned"
        return "two cores shared with upstream and load" if self.two & self.others else "two cores of their own"


def cores() -> Cores:
    """Shares out the cores that this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return Cores()
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        return Cores()
    return Cores(frozenset(mine[-1:]), frozenset(mine[-2:]), frozenset(mine[:-2] or mine[:1]))


def _list(numbers: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


@dataclass(frozen=True, slots=True)
class Contender:
    """How to start one. `database`: where its spans go, for a gateway of ours that keeps them.

    `port` None: it prints the last line of its start, which ends in its port. `is_peer`: somebody else's, which is left
    out where it does not start. `log_path`: its log goes to whoever reads there.
    """

    name: str
    command: Sequence[str]
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    port: int | None = None
    ready_path: str = ""
    database: Path | None = None
    is_peer: bool = False
    log_path: str = ""


class Running:
    """A contender that serves."""

    def __init__(self, contender: Contender, process: "subprocess.Popen[str] | None", port: int) -> None:
        self.contender = contender
        self.port = port
        self._process = process

    def head(self, path: str | None = None) -> str:
        """The head of a request to it, without its length; `path`: another than its chat completions."""
        headers = {
            "Host": f"{HOST}:{self.port}",
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "OpenAI/Python 2.0.0",
            **self.contender.headers,
        }
        lines = [f"POST {path or self.contender.path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
        return "\r\n".join(lines) + "\r\n"

    def cpu_s(self) -> float | None:
        """Seconds of CPU that it and its children have used; None where it cannot be seen."""
        return self._sum(_cpu_s)

    def resident_mb(self) -> float | None:
        """Resident memory of it and its children; None where it cannot be seen."""
        return self._sum(_resident_mb)

    def _sum(self, of: Callable[[int], float]) -> float | None:
        if self._process is None or not _HAS_PROC:
            return None
        return sum(map(of, _with_children(self._process.pid)))

    def spans(self, after: int = 0) -> int:
        """How many spans of calls and posts it has stored behind this row, all of them settled."""
        if self.contender.database is None:
            return 0
        with closing(connect_reader(self.contender.database)) as db:
            row = db.execute("SELECT count(*) FROM spans WHERE row_id > ? AND is_open = 0", (after,)).fetchone()
            return int(row[0])

    def last_row(self) -> int:
        """The last row of its database."""
        if self.contender.database is None:
            return 0
        with closing(connect_reader(self.contender.database)) as db:
            return int(db.execute("SELECT coalesce(max(row_id), 0) FROM spans").fetchone()[0])


@contextmanager
def started(contender: Contender, on: frozenset[int] | None, log: Path) -> Iterator[Running]:
    """Starts a contender on these cores, and ends it. What it says goes to `log`. Raises BenchError."""
    with log.open("ab") as said:
        process = subprocess.Popen(
            contender.command,
            # With it a start would compile all modules, each time; an installed package has that done.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **contender.env},
            stdout=subprocess.PIPE if contender.port is None else said,
            stderr=said,
            text=True,
            cwd=log.parent,
            preexec_fn=pinned(on),
        )
    try:
        if contender.port is None:
            assert process.stdout is not None
            port = process.stdout.readline().strip().rpartition(":")[2]
            if not port.isdecimal():
                raise BenchError(f"{contender.name} did not start: {end_of(log)}")
            yield Running(contender, process, int(port))
        else:
            _await_ready(contender, process, log)
            if contender.log_path:
                threading.Thread(target=_read_on, args=(contender.port, contender.log_path), daemon=True).start()
            yield Running(contender, process, contender.port)
    finally:
        process.terminate()
        try:
            process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def pinned(on: frozenset[int] | None) -> Callable[[], None] | None:
    """What a new process does first, to stay on these cores."""
    return None if on is None else lambda: os.sched_setaffinity(0, on)


def _await_ready(contender: Contender, process: "subprocess.Popen[str]", log: Path) -> None:
    until = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError, HTTPException), ask(contender.port, contender.ready_path, timeout_s=5.0):
            return
        time.sleep(_LOOK_EVERY_S)
    raise BenchError(f"{contender.name} did not start: {end_of(log)}")


def _read_on(port: int, path: str) -> None:
    with suppress(OSError, HTTPException), ask(port, path) as answer:
        while answer.read1():
            pass


def ask(port: int | None, path: str, timeout_s: float | None = None) -> HTTPResponse:
    """The answer to a GET. Raises OSError and HTTPException."""
    # Not by way of a proxy that the environment names.
    answer: HTTPResponse = build_opener(ProxyHandler({})).open(f"http://{HOST}:{port}{path}", timeout=timeout_s)
    return answer


def end_of(log: Path) -> str:
    """The last of what a process said."""
    return log.read_text("utf-8", "replace")[-500:].strip() or "it says nothing"


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for known in found:
        with suppress(OSError):
            for task in Path(f"/proc/{known}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _cpu_s(pid: int) -> float:
    try:
        # Behind the name, which may hold spaces (proc(5)): utime and stime are fields 14 and 15.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def _resident_mb(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


# Those that come with the benchmark


def bare(upstream: str) -> Contender:
    """aiohttp by itself."""
    return Contender("bare aiohttp", [sys.executable, "-m", "gateway.bench.bare", upstream])


def gateway(folder: Path, upstream: str, *, workers: int = 1, log_on: bool = True, name: str = "gateway") -> Contender:
    """The gateway with everything on, or without its spans."""
    database = folder / f"{name.replace(' ', '-')}.db"
    config = database.with_suffix(".toml")
    config.write_text(
        _CONFIG.format(workers=workers, database=json.dumps(str(database)), key=KEY, upstream=upstream), "utf-8"
    )
    if log_on:
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    else:
        command = [sys.executable, "-m", "gateway.bench.unlogged", str(config)]
    return Contender(name, command, headers={"Authorization": f"Bearer {KEY}"}, database=database if log_on else None)
