"""A client that hardly reads holds up nobody but itself."""

import asyncio
import hashlib
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.conftest import KEY, StartGateway
from tests.fakes.client import raw_client, soon, unchunked
from tests.fakes.upstream import USAGE_CHUNK, Received, ScriptedUpstream, Wire, answer_chat, chunk
from tests.soak.conftest import Figures, HowLong
from tests.soak.evidence import difference, rows

NORMAL = 200
ROUTE = "/v1/chat/completions"
REQUEST = b'{"model":"m","stream":true}'
MB = 1024 * 1024
# What the kernel's buffers on the way may take in (tcp_rmem and tcp_wmem), and 64 KB here and there in the gateway.
HELD_AT_MOST = 16 * MB

EVENTS = [f"data: {json.dumps(chunk({'content': f'{number:08}' + 'x' * 10_000}))}\n\n" for number in range(2000)]
END = [f"data: {json.dumps(USAGE_CHUNK)}\n\n", "data: [DONE]\n\n"]


class SlowClient:
    """Reads as few bytes from its socket as a test asks it to."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.got = bytearray()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def read(self, size: int) -> None:
        self.got += await soon(asyncio.get_running_loop().sock_recv(self._sock, size))


@asynccontextmanager
async def slow_client(url: str) -> AsyncIterator[SlowClient]:
    parts = urlsplit(url)
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
        yield SlowClient(sock)


async def test_a_client_that_reads_byte_by_byte_holds_up_nobody(
    start_gateway: StartGateway, upstream: ScriptedUpstream, how_long: HowLong, figures: Figures
) -> None:
    written = calls = 0
    begun = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        nonlocal written
        if "X-Slow" not in received.headers:
            await answer_chat(received, wire)
            return
        await wire.stream_head()
        for event in (*EVENTS, *END):
            await wire.chunk(event)
            written += len(event)
            begun.set()
        await wire.end_chunks()

    upstream.play = play
    gateway = await start_gateway(store="max_content_mb = 1")

    async def normal() -> None:
        async with raw_client(gateway.url, KEY) as client:
            await client.post(ROUTE, REQUEST)
            assert (await client.read_answer()).endswith(b"data: [DONE]\n\n")

    async def normal_ones() -> float:
        """All of them at once; how many seconds that took."""
        nonlocal calls
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(NORMAL):
                group.create_task(normal())
        calls += NORMAL
        return time.perf_counter() - started

    alone = [await normal_ones() for _ in range(2)]
    beside = []
    async with slow_client(gateway.url) as slow:
        head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nX-Slow: 1\r\nConnection: close\r\n"
        await slow.send(head.encode() + b"Content-Length: %d\r\n\r\n" % len(REQUEST) + REQUEST)
        await soon(begun.wait())
        for _ in how_long.rounds(stride=3, long=20):
            beside.append(await normal_ones())
            await slow.read(1)
            assert written < HELD_AT_MOST
        held = written
        assert len(slow.got) == len(beside)
        while not slow.got.endswith(b"\r\n0\r\n\r\n"):
            await slow.read(65536)

    expected = "".join([*EVENTS, END[-1]]).encode()
    got, is_whole = unchunked(bytes(slow.got[slow.got.index(b"\r\n\r\n") + 4 :]))
    assert is_whole
    assert hashlib.sha256(got).digest() == hashlib.sha256(expected).digest(), difference(got, expected)
    # The long answer does not fit into a span whole, which is a warning.
    assert sorted(row["status"] for row in rows(gateway.path, "status")) == ["success"] * calls + ["warning"]
    figures(
        normal_calls=calls,
        ms_for_200_alone=round(1000 * min(alone)),
        ms_for_200_beside=round(1000 * min(beside)),
        bytes_of_the_slow_one=len(got),
        bytes_held_at_most=held,
    )
