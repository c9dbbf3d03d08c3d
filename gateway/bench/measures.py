"""What is measured. Each measure is one function that fills in rows."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from gateway.bench import asking, contenders
from gateway.bench.commits import Committed
from gateway.bench.contenders import BenchError, Contender, Running, ask, pinned
from gateway.bench.fill import fill
from gateway.bench.harness import Harness, Sample, chat, chat_body, posts
from gateway.bench.load import Job
from gateway.bench.results import Figures, Row
from gateway.bench.upstream import whole_answer

RATE = "requests a second"
CPU = "CPU ms per 1,000"
CHUNKS = "chunks a second"
SPANS = "spans a second"
_MEGABYTE = 1_000_000
_PACE = 500.0
_BULK = 500
_CHUNKS, _GAP_MS = 50, 10
# Calls a second, while stored spans are asked for.
_BESIDE = 200.0


def _speed(sample: Sample) -> Figures:
    result = sample.result
    return {RATE: result.answered / result.seconds, **_cpu(sample, result.answered)}


def _chunk_speed(sample: Sample) -> Figures:
    result = sample.result
    return {CHUNKS: result.chunks / result.seconds, **_cpu(sample, result.chunks)}


def _span_speed(sample: Sample, each: int = 1) -> Figures:
    spans = sample.result.answered * each
    return {SPANS: spans / sample.result.seconds, **_cpu(sample, spans)}


def _cpu(sample: Sample, number: int) -> Figures:
    return {} if sample.cpu_s is None else {CPU: 1e6 * sample.cpu_s / number}


_LATENCY = ("p50 ms", "p99 ms")
_DELAYS = ("first token p50 ms", "first token p99 ms", "gap p50 ms", "gap p99 ms")


def _latency(sample: Sample) -> Figures:
    return {name: 1e3 * value for name, value in zip(_LATENCY, sample.result.latency, strict=True)}


def _delays(sample: Sample) -> Figures:
    result = sample.result
    found = {name: 1e3 * value for name, value in zip(_DELAYS, (*result.first, *result.gap), strict=True)}
    return {**found, **_cpu(sample, result.chunks)}


def _ours(harness: Harness) -> list[Contender]:
    """With what they are laid beside."""
    folder, upstream = harness.folder, harness.upstream
    return [
        contenders.bare(upstream),
        contenders.gateway(folder, upstream),
        contenders.gateway(folder, upstream, log_on=False, name="gateway, log off"),
    ]


def calls(harness: Harness) -> None:
    """Calls that are not streamed, one after the other on so many connections."""
    with harness.running(*_ours(harness)) as running:
        for connections in (1, 16, 64, 256):
            _calls(harness, "calls", running, connections)


def _calls(harness: Harness, measure: str, running: Sequence[Running], connections: int) -> None:
    def job(one: Running) -> Job:
        return chat(one, "bench-whole-1000", connections=connections, seconds=harness.seconds)

    harness.compare(measure, _connections(connections), [harness.direct, *running], job, _speed)


def _connections(number: int) -> str:
    return "1 connection" if number == 1 else f"{number} connections"


def latency(harness: Harness) -> None:
    """What is added to a call at a pace that all can keep."""
    with harness.running(*_ours(harness)) as running:
        _added_latency(harness, "latency", running)


def _added_latency(harness: Harness, measure: str, running: Sequence[Running]) -> None:
    def job(one: Running) -> Job:
        return chat(one, "bench-whole-1000", connections=16, seconds=harness.seconds, rate=_PACE)

    contenders_of = [harness.direct, *running]
    harness.compare(measure, f"{_PACE:g} calls a second", contenders_of, job, _latency, added=_LATENCY)


def others(harness: Harness) -> None:
    """Other gateways, where they are installed, and ours beside them; apart from the rest, which would last as long as
    the slowest."""
    if not harness.peers:
        return
    with harness.running(*_ours(harness), *harness.peers) as running:
        for connections in (1, 64):
            _calls(harness, "others", running, connections)
        _added_latency(harness, "others", running)
        _full_speed(harness, "others", "64 streams at full speed", [harness.direct, *running])
        _at_a_pace(harness, "others", running, 40)


def streams(harness: Harness) -> None:
    """Streams as fast as they go."""
    with harness.running(*_ours(harness)) as running:
        _full_speed(harness, "streams", "64 at full speed", [harness.direct, *running])


def _full_speed(harness: Harness, measure: str, case: str, running: Sequence[Running]) -> None:
    def job(one: Running) -> Job:
        return chat(one, "bench-stream-500-0", connections=64, seconds=harness.seconds, chunks=500)

    harness.compare(measure, case, running, job, _chunk_speed)


def paced(harness: Harness) -> None:
    """Streams as a model makes them: so many milliseconds between two chunks."""
    with harness.running(*_ours(harness)) as running:
        for number in (40,) if harness.quick else (40, 200):
            _at_a_pace(harness, "paced", running, number)


def _at_a_pace(harness: Harness, measure: str, running: Sequence[Running], number: int) -> None:
    def job(one: Running) -> Job:
        # They begin over the time that one takes: in step, each would wait for all the others.
        return chat(
            one,
            f"bench-stream-{_CHUNKS}-{_GAP_MS}",
            connections=number,
            requests=4 * number,
            chunks=_CHUNKS,
            spread=_CHUNKS * _GAP_MS / 1000,
        )

    case = f"{number} streams, a chunk each {_GAP_MS} ms"
    harness.compare(measure, case, [harness.direct, *running], job, _delays, added=_DELAYS)


def posted(harness: Harness) -> None:
    """Spans that are posted; one by one to bare aiohttp as well, which answers and keeps nothing."""
    ours = contenders.gateway(harness.folder, harness.upstream)
    with harness.running(contenders.bare(harness.upstream), ours) as (bare, gateway):
        _one_by_one(harness, "posts", "one by one, 64 connections", [bare, gateway])
        _in_bulk(harness, "posts", f"{_BULK} at once, 4 connections", [gateway])


def _one_by_one(harness: Harness, measure: str, case: str, running: Sequence[Running]) -> None:
    def job(one: Running) -> Job:
        return posts(one, connections=64, seconds=harness.seconds)

    harness.compare(measure, case, running, job, _span_speed)


def _in_bulk(harness: Harness, measure: str, case: str, running: Sequence[Running]) -> None:
    def job(one: Running) -> Job:
        return posts(one, connections=4, seconds=harness.seconds, bulk=_BULK)

    harness.compare(measure, case, running, job, partial(_span_speed, each=_BULK))


def commits(harness: Harness) -> None:
    """SQLite by itself: what no span can cost less than."""
    for each in (1, 64, _BULK):
        case = "a span each" if each == 1 else f"{each} spans each"
        row = Row("commits", case, "SQLite by itself", seconds=harness.seconds)
        harness.results.rows.append(row)
        for number in range(harness.rounds):
            harness.tell(f"commits, {case}", number, harness.rounds)
            database = harness.folder / f"commits-{each}-{number}.db"
            row.add(_commits(harness, [str(database), str(each), str(harness.seconds)]))


def _commits(harness: Harness, arguments: Sequence[str]) -> Figures:
    command = [sys.executable, "-m", "gateway.bench.commits", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=pinned(harness.cores.contender))
    if done.returncode:
        raise BenchError(f"SQLite by itself was not measured: {done.stderr[-500:].strip()}")
    found = Committed(**json.loads(done.stdout))
    return {
        SPANS: found.spans / found.seconds,
        CPU: 1e6 * found.cpu_s / found.spans,
        "a transaction, p50 ms": 1e3 * found.transaction_s,
    }


def start(harness: Harness) -> None:
    """From the start of the process to its first answer, and its memory when nothing happens."""
    row = Row("start", "", "gateway")
    harness.results.rows.append(row)
    for number in range(harness.rounds):
        harness.tell(f"start: round {number + 1} of {harness.rounds}")
        row.add(_start(harness, contenders.gateway(harness.folder, harness.upstream, name=f"start {number}")))


def _start(harness: Harness, contender: Contender) -> Figures:
    began = time.perf_counter()
    with harness.running(contender) as (running,):
        ask(running.port, "/health").read()
        answered = time.perf_counter() - began
        # The price table is loaded behind the first answer.
        time.sleep(1.0)
        return {"first answer s": answered, **_memory("idle MB", running)}


def _memory(name: str, running: Running) -> Figures:
    resident_mb = running.resident_mb()
    return {} if resident_mb is None else {name: resident_mb}


def memory(harness: Harness) -> None:
    """Resident memory after few calls and after many."""
    few, many = (1_000, 10_000) if harness.quick else (10_000, 1_000_000)
    row = Row("memory", f"after {few:,} and {many:,} calls", "gateway")
    harness.results.rows.append(row)
    with harness.running(contenders.gateway(harness.folder, harness.upstream, name="memory")) as (running,):
        figures: Figures = {}
        for done in range(0, many, few):
            harness.tell("memory: calls", done, many)
            _, wrong = harness.round(running, chat(running, "bench-whole-1000", connections=64, requests=few))
            if wrong:
                row.add(None, wrong)
                return
            figures = figures or _memory("few calls MB", running)
        figures |= _memory("many calls MB", running)
        if figures:
            row.add({**figures, "many ÷ few": figures["many calls MB"] / figures["few calls MB"]})


def workers(harness: Harness) -> None:
    """One worker and two, where load and upstream leave room; CPU a call where they do not."""
    folder, upstream = harness.folder, harness.upstream
    one = contenders.gateway(folder, upstream, name="gateway, 1 worker")
    two = contenders.gateway(folder, upstream, name="gateway, 2 workers", workers=2)
    with harness.running(one, two, on=harness.cores.two) as running:

        def job(one: Running) -> Job:
            return chat(one, "bench-whole-1000", connections=64, seconds=harness.seconds)

        harness.compare("workers", f"64 connections, {harness.cores.two_told()}", running, job, _speed)


def sizes(harness: Harness) -> None:
    """How cost grows with what is sent."""
    ours = [contenders.bare(harness.upstream), contenders.gateway(harness.folder, harness.upstream)]
    with harness.running(*ours) as running:
        for size, name in ((1_000, "1 KB"), (50_000, "50 KB"), (_MEGABYTE, "1 MB")):

            def job(one: Running, size: int = size) -> Job:
                return chat(one, f"bench-whole-{size}", connections=16, size=size, seconds=harness.seconds)

            harness.compare("sizes", f"bodies of {name}", [harness.direct, *running], job, _speed)
        for chunks in (10, 1000):

            def stream(one: Running, chunks: int = chunks) -> Job:
                return chat(one, f"bench-stream-{chunks}-0", connections=16, seconds=harness.seconds, chunks=chunks)

            harness.compare("sizes", f"streams of {chunks:,} chunks", [harness.direct, *running], stream, _chunk_speed)


def stored(harness: Harness) -> None:
    """Whether it gets slower with what is stored already."""
    numbers = (0, 100_000) if harness.quick else (0, 1_000_000, 5_000_000)
    filled: list[Contender] = []
    for number in numbers:
        contender = contenders.gateway(harness.folder, harness.upstream, name=f"gateway, {number:,} spans")
        try:
            _fill(harness, contender, number)
        except BenchError as error:
            harness.results.leave_out(f"{contender.name}: {error}")
        else:
            filled.append(contender)
    starts = [Row("stored", "start", contender.name) for contender in filled]
    harness.results.rows += starts
    for number in range(harness.rounds):
        harness.tell(f"stored, start: round {number + 1} of {harness.rounds}")
        for row, contender in zip(starts, filled, strict=True):
            row.add(_start(harness, contender))
    with harness.running(*filled) as running:

        def job(one: Running) -> Job:
            return chat(one, "bench-whole-1000", connections=64, seconds=harness.seconds)

        harness.compare("stored", "64 connections", running, job, _speed)
        _added_latency(harness, "stored", running)
        _full_speed(harness, "stored", "64 streams at full speed", running)
        _at_a_pace(harness, "stored", running, 40)
        _one_by_one(harness, "stored", "posts, 64 connections", running)
        _in_bulk(harness, "stored", f"posts, {_BULK} at once", running)


def reads(harness: Harness) -> None:
    """What is asked of many stored spans, while calls come in."""
    number = 100_000 if harness.quick else 1_000_000
    contender = contenders.gateway(harness.folder, harness.upstream, name=f"reads of {number:,} spans")
    _fill(harness, contender, number)
    case = f"{number:,} spans stored, {_BESIDE:g} calls a second beside"
    rows = {name: Row("reads", case, name, seconds=harness.seconds) for name, _ in asking.QUESTIONS}
    harness.results.rows += rows.values()
    with harness.running(contender) as (running,):
        turns = harness.rounds * len(rows)
        for done in range(harness.rounds):
            for turn, (name, path) in enumerate(asking.QUESTIONS, done * len(rows)):
                harness.tell(f"reads: {name}", turn, turns)
                calls = chat(running, "bench-whole-1000", connections=16, seconds=harness.seconds, rate=_BESIDE)
                took, wrong = asking.asked(running, path, partial(harness.round, running, calls))
                figures = {"p50 ms": 1e3 * median(took), "p95 ms": 1e3 * asking.most(took)}
                rows[name].add(None if wrong else figures, wrong)


def _fill(harness: Harness, contender: Contender, number: int) -> None:
    assert contender.database is not None
    request = chat_body("bench-whole-1000", 1000)
    answer = whole_answer(1000).partition(b"\r\n\r\n")[2].decode()
    fill(contender.database, number, request, answer, lambda done: harness.tell("filling: spans", done, number))


# How many rounds, of so many seconds. What is told first, and what wanders most from minute to minute, has the most.
ROUNDS: dict[str, tuple[int, float]] = {
    "calls": (15, 1.0),
    "latency": (15, 1.0),
    "others": (5, 1.0),
    "stored": (7, 1.5),
    "reads": (3, 3.0),
}
ROUNDS_ELSE = (3, 2.0)
ROUNDS_QUICK = (1, 0.5)

MEASURES: dict[str, Callable[[Harness], None]] = {
    "calls": calls,
    "latency": latency,
    "others": others,
    "streams": streams,
    "paced": paced,
    "posts": posted,
    "commits": commits,
    "start": start,
    "memory": memory,
    "workers": workers,
    "sizes": sizes,
    "stored": stored,
    "reads": reads,
}
