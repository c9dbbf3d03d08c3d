"""Runs jobs against contenders: rounds that are interleaved, checked, and void where something failed."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.bench.contenders import HOST, BenchError, Contender, Cores, Running, pinned, started
from gateway.bench.load import Job, Result
from gateway.bench.results import Figures, Results, Row

# Before the rounds, so that no round pays for what happens once.
_WARM_S = 0.5
# The last commits may come after the replies, by `commit_wait_ms` at most where the store keeps up.
_SPANS_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.05
_PROMPT = "Say what the quick brown fox does, and why the lazy dog lets it. "


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one contender."""

    result: Result
    cpu_s: float


MakeJob = Callable[[Running], Job]
# Of a contender's sample, and that of the upstream by itself in the same round.
MakeFigures = Callable[[Sample, Sample | None], Figures]


class Harness:
    """An upstream, a load, and what has been measured with them."""

    def __init__(
        self,
        folder: Path,
        cores: Cores,
        upstream_port: int,
        load: "subprocess.Popen[str]",
        results: Results,
        tell: Callable[[str], None],
        *,
        rounds: int,
        seconds: float,
        quick: bool,
        peers: Sequence[Contender] = (),
    ) -> None:
        self.folder = folder
        self.cores = cores
        self.upstream = f"http://{HOST}:{upstream_port}"
        self.results = results
        self.rounds = rounds
        self.seconds = seconds
        self.quick = quick
        self.peers = peers
        self.tell = tell
        self.direct = Running(Contender("direct", []), None, upstream_port)
        self._load = load

    @contextmanager
    def running(self, *contenders: Contender, on: frozenset[int] | None = None) -> Iterator[list[Running]]:
        """Starts contenders, one after the other; they run beside each other, and wait for their turn."""
        with ExitStack() as stack:
            found: list[Running] = []
            for contender in contenders:
                self.tell(f"starting {contender.name}")
                log = self.folder / f"{contender.name.replace(' ', '-').replace(',', '')}.log"
                found.append(stack.enter_context(started(contender, on or self.cores.contender, log)))
            yield found

    def compare(
        self, measure: str, case: str, contenders: Sequence[Running], job: MakeJob, figures: MakeFigures
    ) -> None:
        """Rounds of all contenders in turn; `direct` first, so that the others can be laid beside it."""
        rows = [Row(measure, case, running.contender.name) for running in contenders]
        self.results.rows += rows
        for running in contenders:
            warm = job(running)
            self.run(Job(**{**asdict(warm), "seconds": _WARM_S, "requests": 0 if not warm.requests else 64}))
        for number in range(self.rounds):
            direct: Sample | None = None
            for running, row in zip(contenders, rows, strict=True):
                self.tell(f"{measure}, {case}: {running.contender.name}, round {number + 1} of {self.rounds}")
                sample, wrong = self.round(running, job(running))
                if running is self.direct and not wrong:
                    direct = sample
                row.rounds.append(None if wrong else figures(sample, direct))
                if wrong:
                    row.void.append(f"round {number + 1}: {wrong}")

    def round(self, running: Running, job: Job) -> tuple[Sample, str]:
        """One round, and what makes it void: a request that failed, or a span that is not there."""
        last = running.last_row()
        cpu_s = running.cpu_s()
        result = self.run(job)
        sample = Sample(result, running.cpu_s() - cpu_s)
        if result.failed or not result.answered:
            return sample, f"{result.failed} requests failed: {result.error}"
        if running.contender.database is None:
            return sample, ""
        expected = result.answered * _spans_in(job)
        until = time.monotonic() + _SPANS_WITHIN_S
        while (found := running.spans(last)) != expected and time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)
        return sample, "" if found == expected else f"{found} spans stored of {expected}"

    def run(self, job: Job) -> Result:
        """Has the load do a job. Raises BenchError."""
        assert self._load.stdin is not None and self._load.stdout is not None
        self._load.stdin.write(json.dumps(asdict(job)) + "\n")
        self._load.stdin.flush()
        line = self._load.stdout.readline()
        if not line:
            raise BenchError("The load has ended; see above why.")
        return Result(**json.loads(line))


def chat(
    running: Running,
    model: str,
    *,
    connections: int,
    size: int = 1000,
    seconds: float = 0.0,
    requests: int = 0,
    rate: float = 0.0,
    chunks: int | None = None,
) -> Job:
    """A job of chat completions of about `size` bytes each."""
    body: dict[str, object] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": (_PROMPT * (size // len(_PROMPT) + 1))[: max(1, size - 200)]},
        ],
        "temperature": 0.7,
        "max_tokens": 256,
    }
    if chunks is not None:
        body["stream"] = True
    return Job(
        HOST, running.port, running.head(), json.dumps(body), connections, seconds, requests, rate, chunks=chunks
    )


def posts(running: Running, *, connections: int, seconds: float, bulk: int = 0) -> Job:
    """A job of posted spans, one by one or `bulk` at a time."""
    span = {
        "model": "bench",
        "input": [{"role": "user", "content": _PROMPT * 12}],
        "output": {"role": "assistant", "content": _PROMPT * 12},
        "usage": {"prompt_tokens": 200, "completion_tokens": 200},
        "latency": 1.2,
        "customer_identifier": "customer-1",
        "metadata": {"plan": "pro"},
    }
    path = "/api/request-logs/bulk/" if bulk else "/api/request-logs/"
    body = {"logs": [span] * bulk} if bulk else span
    return Job(HOST, running.port, running.head(path), json.dumps(body), connections, seconds, status=201)


def _spans_in(job: Job) -> int:
    """How many spans one request leaves."""
    logs = json.loads(job.body).get("logs")
    return len(logs) if isinstance(logs, list) else 1


@contextmanager
def helpers(cores: Cores, log: Path) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """The upstream's port, and the load."""
    with log.open("ab") as said, ExitStack() as stack:

        def start(module: str) -> "subprocess.Popen[str]":
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", module],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    text=True,
                    preexec_fn=pinned(cores.others),
                )
            )
            stack.callback(process.kill)
            return process

        upstream, load = start("gateway.bench.upstream"), start("gateway.bench.load")
        assert upstream.stdout is not None
        yield int(upstream.stdout.readline()), load
