"""Clients of every kind at once before running gateways, and what they may rely on afterwards."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fakes.client import RawClient, raw_client, soon
from tests.fakes.upstream import COMPLETION, USAGE_CHUNK, Received, ScriptedUpstream, Wire, chunk

ROUTE = "/v1/chat/completions"
KEY = "key-of-the-load"
TOO_MANY = {"error": {"message": "Too many.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}

# How a span stands once its call or post has ended: open, status, status code, error code.
SUCCESS = (0, "success", 200, None)
INTERRUPTED = (0, "failed", 500, "interrupted")
CALLS = {
    "plain": SUCCESS,
    "streamed": SUCCESS,
    "failing": (0, "failed", 429, "rate_limit_exceeded"),
    # The upstream keeps these waiting until it is told: in the middle of a stream, and before the head.
    "held": SUCCESS,
    "held back": SUCCESS,
}
POSTS = {
    "posted": SUCCESS,
    "posted with an id": SUCCESS,
    "posted as running": (0, "running", 200, None),
    "bulk": SUCCESS,
}
EXPECTED = CALLS | POSTS
HELD = ("held", "held back")
_WEIGHTS = {"plain": 4, "streamed": 4, "failing": 1, "held": 1, "held back": 1, "posted": 3, "posted with an id": 3,
            "posted as running": 1, "bulk": 1}  # fmt: skip
_HELD_AT_MOST = 4
_BULK = 20
# Mostly short, at times so long that the write-ahead log grows over its limit.
_LENGTHS = (0, 0, 0, 2_000, 60_000)

# A URL, and what tells the ids of the processes that serve it.
Address = tuple[str, Callable[[], Collection[int]]]
# What is done on a connection to a process.
Use = Callable[[RawClient, int | None], Awaitable[None]]


def configuration(upstream: ScriptedUpstream, more: str = "", store: str = "") -> str:
    """A `config.toml` with one key and one upstream; `store` are lines of that section, `more` follows."""
    return f"""
[store]
{store}

[[keys]]
name = "load"
key = "{KEY}"

[[upstreams]]
name = "main"
base_url = "{upstream.url}/v1"
{more}
"""


@dataclass(eq=False)
class Sent:
    """What one span is to be made of, and what became of it. Its row is found by `name`, its span_name.

    Moments number everything that the test sees, in the order in which it sees it.
    """

    name: str
    kind: str
    worker: int | None
    began_at: int
    # What is posted, or goes along with a call.
    span: dict[str, Any]
    # Its input, or what the upstream answers to the call.
    text: str
    # When the upstream had the call.
    reached_at: int | None = None
    # When the client had read the answer to its end.
    ended_at: int | None = None
    unique_id: str | None = None


class Load:
    """Sends mixed requests, one after the other on each connection, and keeps what it was told."""

    def __init__(self, upstream: ScriptedUpstream, random: Random, name: str = "") -> None:
        """`name` begins the names of all spans."""
        self.sent: dict[str, Sent] = {}
        # The process at the other end of each connection that broke.
        self.broken: list[int | None] = []
        self.released = asyncio.Event()
        self._group: asyncio.TaskGroup
        self._random = random
        self._name = name
        self._stopping = False
        self._moment = 0
        self._seen: Callable[[bool], None] = lambda ended: None
        upstream.play = self._play

    @contextlib.asynccontextmanager
    async def running(self, *addresses: Address, clients: int = 12) -> AsyncIterator[None]:
        """Sends on so many connections to each address, until the block ends."""
        async with asyncio.TaskGroup() as self._group:
            for address in addresses:
                for _ in range(clients):
                    self._group.create_task(self._client(address))
            try:
                yield
            finally:
                self.stop()

    def stop(self) -> None:
        """No further requests, and the upstream lets go those that it holds."""
        self._stopping = True
        self.released.set()

    async def reaches(self, moment: int, act: Callable[[], None] = lambda: None, *, at_an_end: bool = False) -> None:
        """Waits until so much has been seen (and then for the next answer that is read to its end); `act` is called
        right then, before anything else is."""
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def seen(ended: bool) -> None:
            if not reached.done() and self._moment >= moment and (ended or not at_an_end):
                act()
                reached.set_result(None)

        self._seen = seen
        await soon(reached)

    def held(self) -> list[Sent]:
        """The calls that the upstream keeps waiting."""
        return [sent for sent in self.sent.values() if sent.kind in HELD and sent.reached_at and not sent.ended_at]

    async def hold(self, address: Address) -> None:
        """Has one more call held, on a connection of its own."""
        number = len(self.held())
        self._group.create_task(
            self._on_a_connection(address, lambda client, worker: self._call(client, worker, "held"))
        )
        async with asyncio.timeout(60):
            while len(self.held()) == number:
                await asyncio.sleep(0.01)

    # Clients

    async def _client(self, address: Address) -> None:
        async def go_on(client: RawClient, worker: int | None) -> None:
            while not self._stopping:
                await self._one(client, worker)

        while not self._stopping:
            await self._on_a_connection(address, go_on)

    async def _on_a_connection(self, address: Address, use: Use) -> None:
        url, workers = address
        worker = None
        try:
            async with raw_client(url, KEY) as client:
                await client.send_head("GET", "/health")
                await client.read_answer()
                try:
                    worker = _peer(client, workers())
                except FileNotFoundError:
                    # It was killed meanwhile, and has no workers either.
                    raise ConnectionResetError from None
                await use(client, worker)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.broken.append(worker)

    async def _one(self, client: RawClient, worker: int | None) -> None:
        (kind,) = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        if kind in HELD and (self.released.is_set() or len(self.held()) >= _HELD_AT_MOST):
            kind = "streamed"
        if kind in CALLS:
            await self._call(client, worker, kind)
        else:
            await self._post(client, worker, kind)

    async def _call(self, client: RawClient, worker: int | None, kind: str) -> None:
        (sent,) = self._sent(kind, worker, 1)
        client.headers.clear()
        body = {
            "model": "m",
            "stream": kind in ("streamed", "held"),
            "messages": [{"role": "user", "content": sent.name}],
            "respan_params": sent.span,
        }
        try:
            await client.post(ROUTE, json.dumps(body).encode())
            answer = await client.read_answer()
        finally:
            sent.unique_id = client.headers.get("X-Respan-Log-Id")
        sent.ended_at = self._now(ended=True)
        assert (client.status, answer) == (EXPECTED[kind][2], b"".join(_pieces(sent, seen=True)))

    async def _post(self, client: RawClient, worker: int | None, kind: str) -> None:
        sent = self._sent(kind, worker, _BULK if kind == "bulk" else 1)
        body = {"logs": [one.span for one in sent]} if kind == "bulk" else sent[0].span
        await client.post(f"/api/request-logs/{'bulk/' if kind == 'bulk' else ''}", json.dumps(body).encode())
        answer = json.loads(await client.read_answer())
        assert client.status == 201, answer
        if kind == "bulk":
            assert answer == {"success_count": _BULK, "error_count": 0, "errors": []}
        else:
            assert answer["span_name"] == sent[0].name
            sent[0].unique_id = answer["unique_id"]
        for one in sent:
            one.ended_at = self._now(ended=True)

    def _sent(self, kind: str, worker: int | None, number: int) -> list[Sent]:
        made = []
        for _ in range(number):
            name = f"{self._name}{len(self.sent)}"
            span: dict[str, Any] = {"span_name": name}
            text = f"{name} {'x' * self._random.choice(_LENGTHS)}"
            if kind in POSTS:
                span |= {"model": "m", "log_type": "tool", "input": text}
            if kind not in ("posted", *CALLS):
                span |= {"unique_id": f"id-of-{name}"}
            if kind == "posted as running":
                span |= {"status": "running"}
            self.sent[name] = Sent(name, kind, worker, self._now(), span, text, unique_id=span.get("unique_id"))
            made.append(self.sent[name])
        return made

    def _now(self, *, ended: bool = False) -> int:
        self._moment += 1
        self._seen(ended)
        return self._moment

    # The upstream

    async def _play(self, received: Received, wire: Wire) -> None:
        sent = self.sent[received.json()["messages"][0]["content"]]
        sent.reached_at = self._now()
        first, *rest = _pieces(sent)
        if sent.kind == "held back":
            await self.released.wait()
        if sent.kind in ("streamed", "held"):
            await wire.stream_head()
            await wire.chunk(first)
            if sent.kind == "held":
                await self.released.wait()
            for piece in rest:
                self._now()
                await wire.chunk(piece)
            await wire.end_chunks()
        else:
            status = CALLS[sent.kind][2]
            await wire.head(status, {"Content-Type": "application/json", "Content-Length": str(len(first))})
            await wire.send(first)

    # What is left

    def check(self, rows: Iterable[Mapping[str, Any]]) -> list[Sent]:
        """Every span is there whose client was told so, once, as it must be; and nothing that was not sent.

        No call is under way any more. Gives the calls that the upstream saw and that have no row.
        """
        found: dict[str, Mapping[str, Any]] = {}
        for row in rows:
            assert row["span_name"] in self.sent, f"nobody sent {row}"
            assert row["span_name"] not in found, f"stored twice: {row}"
            found[row["span_name"]] = row
        # Writes of one process are committed in the order in which they came. So all that it was asked for before a
        # write began that was acknowledged has been committed with that.
        acknowledged: dict[int | None, int] = {}
        for sent in self.sent.values():
            if sent.ended_at is not None and sent.worker is not None:
                acknowledged[sent.worker] = max(sent.began_at, acknowledged.get(sent.worker, 0))
        without = []
        for sent in self.sent.values():
            row = found.get(sent.name)
            if row is not None:
                self._check_row(sent, row)
                continue
            assert sent.ended_at is None, f"acknowledged and not there: {sent}"
            if sent.reached_at is not None:
                last = acknowledged.get(sent.worker, 0)
                assert sent.reached_at > last, f"forwarded before an acknowledged write, and not there: {sent}"
                without.append(sent)
        return without

    def _check_row(self, sent: Sent, row: Mapping[str, Any]) -> None:
        stands = (row["is_open"], row["status"], row["status_code"], row["error_code"])
        may_stand = {EXPECTED[sent.kind]}
        if sent.ended_at is None and sent.kind in CALLS:
            may_stand = {INTERRUPTED} if sent.kind in HELD else {EXPECTED[sent.kind], INTERRUPTED}
        assert stands in may_stand, f"{stands} is not how {sent} stands"
        if sent.unique_id is not None:
            assert row["unique_id"] == sent.unique_id
        if stands == INTERRUPTED:
            assert (row["input"], row["output"]) == (None, None)
        elif sent.kind in POSTS:
            assert json.loads(row["input"]) == sent.text
        elif sent.kind == "failing":
            assert json.loads(row["full_response"]) == TOO_MANY
        else:
            assert json.loads(row["output"])["content"] == sent.text

    def own(self, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The rows that are this load's."""
        return [row for row in rows if row["span_name"].startswith(self._name)]

    def unanswered(self) -> list[Sent]:
        """Posts with an id of their own whose client does not know what became of them."""
        return [one for one in self.sent.values() if one.ended_at is None and "unique_id" in one.span]

    def answered(self, again: Iterable[Sent]) -> None:
        """These were sent once more, and acknowledged by whichever process."""
        for sent in again:
            sent.worker, sent.ended_at = None, self._now()


def audit_of(rows: Iterable[Mapping[str, Any]], sent: Mapping[str, Sent], repeated: int = 0) -> dict[str, Any]:
    """What an audit has to say where these are all the rows, of calls that have ended, and nothing else came in."""
    kinds = [(sent[row["span_name"]].kind, row["error_code"]) for row in rows]
    ends = Counter(error_code for kind, error_code in kinds if kind in CALLS)
    settled = {"4xx": ends["rate_limit_exceeded"], "success": ends[None]}
    return {
        "accepted": ends.total(),
        "settled": {end: number for end, number in settled.items() if number},
        "open": 0,
        "interrupted": ends["interrupted"],
        "dropped": 0,
        "posted": len(kinds) - ends.total(),
        "stored": len(kinds) - ends.total(),
        "repeated": repeated,
        "refused": 0,
        "missing": 0,
        "balanced": True,
        "deleted_calls": 0,
        "deleted_posts": 0,
    }


def _pieces(sent: Sent, *, seen: bool = False) -> list[bytes]:
    """What the upstream answers; `seen`: as much of it as the client gets."""
    if sent.kind == "failing":
        return [json.dumps(TOO_MANY).encode()]
    if sent.kind in ("plain", "held back"):
        message = {"role": "assistant", "content": sent.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return [json.dumps({**COMPLETION, "choices": [choice]}).encode()]
    half = len(sent.text) // 2
    events = [chunk({"role": "assistant", "content": sent.text[:half]}), chunk({"content": sent.text[half:]})]
    events += [chunk({}, finish_reason="stop"), *([] if seen else [USAGE_CHUNK])]
    return [*(f"data: {json.dumps(event)}\n\n".encode() for event in events), b"data: [DONE]\n\n"]


def _peer(client: RawClient, workers: Iterable[int]) -> int | None:
    """Which of these processes has the other end of a connection; None if it is gone."""
    _, port = client.writer.get_extra_info("sockname")
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Fields: number, local address, remote address, …, the socket's inode as the tenth.
    sockets = {f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{port:04X}")}
    for worker in workers:
        with contextlib.suppress(FileNotFoundError):
            for file in Path(f"/proc/{worker}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if str(file.readlink()) in sockets:
                        return worker
    return None
