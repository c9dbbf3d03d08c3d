"""Runs jobs against contenders: rounds that are interleaved, checked, and void where something failed."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol, TypedDict, Unpack

from gateway.bench.contenders import HOST, BenchError, Contender, Cores, Running, end_of, pinned, started
from gateway.bench.load import Job, Result
from gateway.bench.results import ADDED, DIRECT, Figures, Results, Row

# Before the rounds, so that no round pays for what happens once: seconds, or requests.
_WARM_S = 0.5
_WARM_REQUESTS = 64
# The last commits may come after the replies, by `commit_wait_ms` at most where the store keeps up.
_SPANS_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.05
_PROMPT = "Say what the quick brown fox does, and why the lazy dog lets it. "


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one contender."""

    result: Result
    cpu_s: float | None


MakeJob = Callable[[Running], Job]
MakeFigures = Callable[[Sample], Figures]


class Tell(Protocol):
    """Hears what is being done, and how much of it there is and is done."""

    def __call__(self, what: str, done: int = 0, of: int | None = None) -> None: ...


class Pace(TypedDict, total=False):
    """How often a job sends, as `Job` has it."""

    seconds: float
    requests: int
    rate: float
    spread: float
    chunks: int


@dataclass(frozen=True, slots=True)
class Load:
    """The process that sends requests, and what it says."""

    process: "subprocess.Popen[str]"
    log: Path

    def run(self, job: Job) -> Result:
        """Has a job done. Raises BenchError."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            print(json.dumps(asdict(job)), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(f"The load has ended: {end_of(self.log)}")
        return Result(**json.loads(line))


class Harness:
    """An upstream, a load, and what has been measured with them."""

    def __init__(
        self,
        folder: Path,
        cores: Cores,
        upstream_port: int,
        load: Load,
        results: Results,
        tell: Tell,
        *,
        rounds: int = 1,
        seconds: float = 1.0,
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
        self.direct = Running(Contender(DIRECT, []), None, upstream_port)
        self._load = load

    @contextmanager
    def running(self, *contenders: Contender, on: frozenset[int] | None = None) -> Iterator[list[Running]]:
        """Starts contenders, one after the other; they run beside each other, and wait for their turn. Somebody else's
        that does not start is left out. Raises BenchError."""
        with ExitStack() as stack:
            found: list[Running] = []
            for contender in contenders:
                self.tell(f"starting {contender.name}")
                log = self.folder / f"{contender.name.replace(' ', '-').replace(',', '')}.log"
                try:
                    found.append(stack.enter_context(started(contender, on or self.cores.contender, log)))
                except BenchError as error:
                    if not contender.is_peer:
                        raise
                    self.results.leave_out(str(error))
            yield found

    def compare(
        self,
        measure: str,
        case: str,
        contenders: Sequence[Running],
        job: MakeJob,
        figures: MakeFigures,
        added: Sequence[str] = (),
    ) -> None:
        """Rounds of all contenders in turn.

        `added`: the figures of which it is also told what is added to those of `direct` in the same round; that has to
        be the first contender then.
        """
        rows = [
            Row(measure, case, running.contender.name, running.contender.is_peer, seconds=job(running).seconds or None)
            for running in contenders
        ]
        self.results.rows += rows
        for running in contenders:
            self.tell(f"{measure}, {case}: warming up {running.contender.name}")
            self.round(running, self._warm(job(running)))
        turns = self.rounds * len(contenders)
        for number in range(self.rounds):
            direct: Figures | None = None
            for turn, (running, row) in enumerate(zip(contenders, rows, strict=True), number * len(contenders)):
                self.tell(f"{measure}, {case}: {running.contender.name}", turn, turns)
                sample, wrong = self.round(running, job(running))
                found = None if wrong else figures(sample)
                if running is self.direct:
                    direct = found
                elif found is not None and added:
                    if direct is None:
                        found, wrong = None, "nothing to compare with: that of direct is void"
                    else:
                        found |= {ADDED + name: found[name] - direct[name] for name in added}
                row.add(found, wrong)

    def _warm(self, job: Job) -> Job:
        if job.requests:
            return replace(job, requests=min(job.requests, _WARM_REQUESTS))
        return replace(job, seconds=min(job.seconds, _WARM_S))

    def round(self, running: Running, job: Job) -> tuple[Sample, str]:
        """One round, and what makes it void: a request that failed, or a span that is not there."""
        last = running.last_row()
        before = running.cpu_s()
        result = self._load.run(job)
        after = running.cpu_s()
        sample = Sample(result, None if before is None or after is None else after - before)
        if result.failed or not result.answered:
            return sample, f"{result.failed} requests failed: {result.error}"
        if running.contender.database is None:
            return sample, ""
        expected = result.answered * _spans_in(job)
        until = time.monotonic() + _SPANS_WITHIN_S
        while (found := running.spans(last)) != expected and time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)
        return sample, "" if found == expected else f"{found} spans stored of {expected}"


def chat(running: Running, model: str, *, connections: int, size: int = 1000, **more: Unpack[Pace]) -> Job:
    """A job of chat completions of about `size` bytes each."""
    body = chat_body(model, size, stream="chunks" in more)
    return Job(HOST, running.port, running.head(), body, connections, **more)


def chat_body(model: str, size: int, *, stream: bool = False) -> str:
    """A request for a chat completion, of about `size` bytes."""
    body: dict[str, object] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": (_PROMPT * (size // len(_PROMPT) + 1))[: max(1, size - 200)]},
        ],
        "temperature": 0.7,
        "max_tokens": 256,
    }
    if stream:
        body["stream"] = True
    return json.dumps(body)


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
def upstream_and_load(cores: Cores, folder: Path) -> Iterator[tuple[int, Load]]:
    """The upstream's port, and the load; what they say goes into `folder`. Raises BenchError."""
    with ExitStack() as stack:

        def start(module: str, log: Path) -> "subprocess.Popen[str]":
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", module],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stack.enter_context(log.open("ab")),
                    text=True,
                    preexec_fn=pinned(cores.others),
                )
            )
            stack.callback(_end, process)
            return process

        log = folder / "upstream.log"
        upstream = start("gateway.bench.upstream", log)
        load = Load(start("gateway.bench.load", folder / "load.log"), folder / "load.log")
        assert upstream.stdout is not None
        port = upstream.stdout.readline().strip()
        if not port:
            raise BenchError(f"The upstream did not start: {end_of(log)}")
        yield int(port), load


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    assert process.stdin is not None
    # What it did not take any more.
    with suppress(BrokenPipeError):
        process.stdin.close()
