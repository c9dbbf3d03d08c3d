"""What is measured. Each measure is one function that fills in rows."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.request import urlopen

from gateway.bench import contenders
from gateway.bench.contenders import HOST, Contender, Running
from gateway.bench.fill import fill
from gateway.bench.harness import Harness, Sample, chat, posts
from gateway.bench.load import Job
from gateway.bench.results import Figures, Row

RATE = "requests a second"
CPU = "CPU ms per 1,000"
CHUNKS = "chunks a second"
SPANS = "spans a second"
_MEGABYTE = 1_000_000
_PACE = 500.0
_BULK = 500


def _speed(sample: Sample, _: Sample | None) -> Figures:
    result = sample.result
    return {RATE: result.answered / result.seconds, CPU: 1e6 * sample.cpu_s / result.answered}


def _chunk_speed(sample: Sample, _: Sample | None) -> Figures:
    result = sample.result
    return {CHUNKS: result.chunks / result.seconds, CPU: 1e6 * sample.cpu_s / result.chunks}


def _added_latency(sample: Sample, direct: Sample | None) -> Figures:
    base = direct.result.latency if direct else (0.0, 0.0)
    return {
        "added p50 ms": 1e3 * (sample.result.latency[0] - base[0]),
        "added p99 ms": 1e3 * (sample.result.latency[1] - base[1]),
    }


def _added_delay(sample: Sample, direct: Sample | None) -> Figures:
    first, gap = (direct.result.first, direct.result.gap) if direct else ((0.0, 0.0), (0.0, 0.0))
    result = sample.result
    return {
        "first token p50 ms": 1e3 * (result.first[0] - first[0]),
        "first token p99 ms": 1e3 * (result.first[1] - first[1]),
        "gap p50 ms": 1e3 * (result.gap[0] - gap[0]),
        "gap p99 ms": 1e3 * (result.gap[1] - gap[1]),
        CPU: 1e6 * sample.cpu_s / result.chunks,
    }


def _all(harness: Harness) -> list[Contender]:
    folder, upstream = harness.folder, harness.upstream
    ours = [
        contenders.gateway(folder, upstream),
        contenders.gateway(folder, upstream, log_on=False, name="gateway, log off"),
    ]
    return [contenders.bare(upstream), *ours, *harness.peers]


def calls(harness: Harness) -> None:
    """Calls that are not streamed, one after the other on so many connections."""
    with harness.running(*_all(harness)) as running:
        for connections in (1, 16, 64, 256):

            def job(one: Running, connections: int = connections) -> Job:
                return chat(one, "bench-whole-1000", connections=connections, seconds=harness.seconds)

            harness.compare("calls", f"{connections} connections", [harness.direct, *running], job, _speed)


def latency(harness: Harness) -> None:
    """What is added to a call at a pace that all can keep."""
    with harness.running(*_all(harness)) as running:
        harness.compare(
            "latency", f"{_PACE:g} calls a second", [harness.direct, *running], _paced(harness), _added_latency
        )


def _paced(harness: Harness) -> Callable[[Running], Job]:
    return lambda one: chat(one, "bench-whole-1000", connections=16, seconds=harness.seconds, rate=_PACE)


def streams(harness: Harness) -> None:
    """Streams as fast as they go."""
    with harness.running(*_all(harness)) as running:

        def job(one: Running) -> Job:
            return chat(one, "bench-stream-500-0", connections=64, seconds=harness.seconds, chunks=500)

        harness.compare("streams", "64 at full speed", [harness.direct, *running], job, _chunk_speed)


def paced(harness: Harness) -> None:
    """Streams as a model makes them: so many milliseconds between two chunks."""
    number = 40 if harness.quick else 200
    with harness.running(*_all(harness)) as running:

        def job(one: Running) -> Job:
            return chat(one, "bench-stream-50-10", connections=number, requests=4 * number, chunks=50)

        harness.compare("paced", f"{number} streams, a chunk each 10 ms", [harness.direct, *running], job, _added_delay)


def posted(harness: Harness) -> None:
    """Spans that are posted."""
    with harness.running(contenders.gateway(harness.folder, harness.upstream, name="gateway")) as running:
        for case, connections, bulk in (
            ("one by one, 64 connections", 64, 0),
            ("500 at once, 4 connections", 4, _BULK),
        ):

            def job(one: Running, connections: int = connections, bulk: int = bulk) -> Job:
                return posts(one, connections=connections, seconds=harness.seconds, bulk=bulk)

            def figures(sample: Sample, _: Sample | None, each: int = bulk or 1) -> Figures:
                spans = sample.result.answered * each
                return {SPANS: spans / sample.result.seconds, CPU: 1e6 * sample.cpu_s / spans}

            harness.compare("posts", case, running, job, figures)


def start(harness: Harness) -> None:
    """From the start of the process to its first answer, and its memory when nothing happens."""
    row = Row("start", "", "gateway")
    harness.results.rows.append(row)
    for number in range(harness.rounds):
        harness.tell(f"start: round {number + 1} of {harness.rounds}")
        contender = contenders.gateway(harness.folder, harness.upstream, name=f"start {number}")
        began = time.perf_counter()
        with harness.running(contender) as (running,):
            urlopen(f"http://{HOST}:{running.port}/health").read()
            answered = time.perf_counter() - began
            # The price table is loaded behind the first answer.
            time.sleep(1.0)
            row.rounds.append({"first answer s": answered, "idle MB": running.resident_mb()})


def memory(harness: Harness) -> None:
    """Resident memory after few calls and after many."""
    few, many = (1_000, 10_000) if harness.quick else (10_000, 1_000_000)
    row = Row("memory", f"after {few:,} and {many:,} calls", "gateway")
    harness.results.rows.append(row)
    with harness.running(contenders.gateway(harness.folder, harness.upstream, name="memory")) as (running,):
        done = 0
        figures: Figures = {}
        while done < many:
            sample, wrong = harness.round(running, chat(running, "bench-whole-1000", connections=64, requests=few))
            if wrong:
                row.void.append(wrong)
                row.rounds.append(None)
                return
            done += sample.result.answered
            harness.tell(f"memory: {done:,} of {many:,} calls")
            figures.setdefault("few calls MB", running.resident_mb())
        row.rounds.append({**figures, "many calls MB": running.resident_mb()})


def workers(harness: Harness) -> None:
    """One worker and two, where load and upstream leave room; CPU a call where they do not."""
    folder, upstream = harness.folder, harness.upstream
    cores = contenders.cores(2)
    one = contenders.gateway(folder, upstream, name="gateway, 1 worker")
    two = contenders.gateway(folder, upstream, name="gateway, 2 workers", workers=2)
    with harness.running(one, two, on=cores.contender) as running:

        def job(one: Running) -> Job:
            return chat(one, "bench-whole-1000", connections=64, seconds=harness.seconds)

        harness.compare("workers", "64 connections, two cores shared with the load", running, job, _speed)


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
        fill(_database(contender), number, partial(_tell_filling, harness, number))
        filled.append(contender)
    with harness.running(*filled) as running:

        def job(one: Running) -> Job:
            return chat(one, "bench-whole-1000", connections=64, seconds=harness.seconds)

        harness.compare("stored", "64 connections", running, job, _speed)
        harness.compare(
            "stored", f"{_PACE:g} calls a second", [harness.direct, *running], _paced(harness), _added_latency
        )

        def post(one: Running) -> Job:
            return posts(one, connections=64, seconds=harness.seconds)

        harness.compare("stored", "posts, 64 connections", running, post, _speed)


def _tell_filling(harness: Harness, number: int, done: int) -> None:
    harness.tell(f"filling: {done:,} of {number:,} spans")


def _database(contender: Contender) -> Path:
    assert contender.database is not None
    return contender.database


MEASURES: dict[str, Callable[[Harness], None]] = {
    "calls": calls,
    "latency": latency,
    "streams": streams,
    "paced": paced,
    "posts": posted,
    "start": start,
    "memory": memory,
    "workers": workers,
    "sizes": sizes,
    "stored": stored,
}
