"""Prints how exactly a call is timed, before an upstream that ticks at known times.

    python -m tests.bench.timing [ROUNDS]

The upstream waits 50 ms, sends 20 tokens 20 ms apart, and notes when it really sent each; the span's figures are
compared with those notes. Then the client hangs up before the first byte, and the delay until the upstream sees it is
measured.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from gateway import config
from gateway.app import opened, served
from tests.fakes.upstream import Received, ScriptedUpstream, Wire, chunk

_TOKENS = 20
_BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}


class Ticking:
    """Plays the ticking stream and keeps when each of its pieces was sent (monotonic seconds)."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        self.ended = 0.0
        self.left_at: asyncio.Future[float] | None = None

    async def play(self, received: Received, wire: Wire) -> None:
        if self.left_at is not None:
            await wire.gone()
            self.left_at.set_result(time.monotonic())
            return
        self.sent.clear()
        await wire.stream_head()
        await asyncio.sleep(0.05)
        for number in range(_TOKENS):
            self.sent.append(time.monotonic())
            await wire.chunk(f"data: {json.dumps(chunk({'content': str(number)}))}\n\n")
            await asyncio.sleep(0.02)
        usage = {"prompt_tokens": 1, "completion_tokens": _TOKENS, "total_tokens": _TOKENS + 1}
        await wire.chunk(f"data: {json.dumps({**chunk({}), 'choices': [], 'usage': usage})}\n\n")
        self.ended = time.monotonic()
        await wire.chunk("data: [DONE]\n\n")
        await wire.end_chunks()


async def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    ticking = Ticking()
    upstream = ScriptedUpstream(ticking.play)
    await upstream.start()
    with tempfile.TemporaryDirectory() as folder:
        text = f"""
            [server]
            port = 0
            [store]
            path = '{Path(folder) / "spans.db"}'
            [[keys]]
            name = "bench"
            key = "bench"
            [[upstreams]]
            name = "ticking"
            base_url = "{upstream.url}/v1"
        """
        settings = config.parse(text, "bench", {})
        async with (
            opened(settings) as app,
            served(settings, app) as url,
            aiohttp.ClientSession(url, headers={"Authorization": "Bearer bench"}) as session,
        ):
            errors = [await timed_call(session, ticking) for _ in progress(rounds, "timed calls")]
            delays = [await departure(session, ticking) for _ in progress(rounds, "departures")]
    await upstream.stop()
    show("time_to_first_token is off by", [one[0] for one in errors])
    show("latency is off by", [one[1] for one in errors])
    show("generating time is off by", [one[2] for one in errors])
    show("a departure reaches the upstream after", delays)


async def timed_call(session: aiohttp.ClientSession, ticking: Ticking) -> tuple[float, float, float]:
    """Absolute errors of one call, in seconds: first token, latency, time between first and last token."""
    began = time.monotonic()
    async with session.post("/v1/chat/completions", json=_BODY) as response:
        await response.read()
    async with session.get(f"/api/request-logs/{response.headers['X-Respan-Log-Id']}/") as response:
        span = await response.json()
    generating = (_TOKENS - 1) / span["tokens_per_second"]
    return (
        abs(span["time_to_first_token"] - (ticking.sent[0] - began)),
        abs(span["latency"] - (ticking.ended - began)),
        abs(generating - (ticking.sent[-1] - ticking.sent[0])),
    )


async def departure(session: aiohttp.ClientSession, ticking: Ticking) -> float:
    """Seconds from the client's hanging up to the upstream's seeing it."""
    ticking.left_at = asyncio.get_running_loop().create_future()
    call = asyncio.create_task(session.post("/v1/chat/completions", json=_BODY))
    await asyncio.sleep(0.05)
    left = time.monotonic()
    call.cancel()
    seen = await ticking.left_at
    return seen - left


def progress(rounds: int, what: str) -> Iterator[int]:
    """Counts the rounds on standard error."""
    for number in range(rounds):
        print(f"\r{what}: {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        yield number
    print(file=sys.stderr)


def show(what: str, seconds: list[float]) -> None:
    print(f"{what}: median {statistics.median(seconds) * 1000:.2f} ms, worst {max(seconds) * 1000:.2f} ms")


if __name__ == "__main__":
    asyncio.run(main())
