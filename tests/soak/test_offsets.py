"""An answer cut at any byte, from either side, is one span that says so, and leaves nothing behind."""

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import KEY, Gateway, StartGateway
from tests.fakes.client import RawClient, raw_client, soon, unchunked
from tests.fakes.upstream import Received, ScriptedUpstream, Wire
from tests.soak.conftest import Figures, HowLong
from tests.soak.evidence import difference, rows, without_usage_chunks

# Every so many bytes there is a cut; the next round begins a byte further on.
STEP = 7
AT_ONCE = 16
# A socket's state in /proc/net/tcp.
LISTENING = "0A"

Span = dict[str, Any]


def written(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Recording:
    """An answer as it came over the wire: `head`, then `chunks` with or without their framing."""

    path: str
    streamed: bool
    head: bytes
    chunks: tuple[bytes, ...]
    # Of a body that has come so far: what its span shows, whether that is all of the answer, what a client gets.
    shown: Callable[[bytes], Span]
    is_all: Callable[[bytes], bool]
    passed: Callable[[bytes], bytes] = lambda body: body

    @property
    def request(self) -> bytes:
        return written({"model": "m", "stream": self.streamed}).encode()

    @property
    def is_chunked(self) -> bool:
        return b"chunked" in self.head

    @property
    def wire(self) -> bytes:
        if not self.is_chunked:
            return self.head + b"".join(self.chunks)
        return self.head + b"".join(framed(chunk) for chunk in self.chunks) + b"0\r\n\r\n"

    def body_in(self, wire: bytes) -> tuple[bytes, bool]:
        """The body in the first bytes of the answer, and whether its framing says that it is whole."""
        if not self.is_chunked:
            body = wire[len(self.head) :]
            return body, body == b"".join(self.chunks)
        body, rest = b"", wire[len(self.head) :]
        while True:
            size, found, rest = rest.partition(b"\r\n")
            if not found or int(size, 16) == 0:
                return body, rest == b"\r\n"
            body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]


def events_in(body: bytes) -> list[Any]:
    """The JSON of each event that has come whole; one that only lacks its blank line is whole as well."""
    found = []
    for event in body.split(b"\n\n"):
        try:
            found.append(json.loads(event.partition(b"data: ")[2]))
        except ValueError:
            continue
    return found


SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nX-Request-Id: r-1\r\n\r\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


# A chat: a usage chunk that we asked for, two events in one chunk, one event in two


def chat_event(**members: Any) -> bytes:
    return f"data: {written({'id': 'c-1', 'model': 'm-1', **members})}\n\n".encode()


def delta(**members: str) -> bytes:
    return chat_event(choices=[{"index": 0, "delta": members}])


def chat_shown(body: bytes) -> Span:
    said: list[str] = []
    usage = None
    for event in events_in(body):
        said += [choice["delta"].get("content", "") for choice in event["choices"]]
        usage = event.get("usage", usage)
    message = {"role": "assistant", "content": "".join(said)} if said else None
    return {"output": message, "usage": usage}


HELLO, EXTRA, DONE = delta(content="Héllo"), chat_event(choices=[], usage=USAGE), b"data: [DONE]\n\n"
CHAT = Recording(
    "/v1/chat/completions",
    True,
    SSE,
    (
        delta(role="assistant", content=""),
        b": ping\n\n" + HELLO[:20],
        HELLO[20:] + delta(content=" there"),
        EXTRA,
        DONE,
    ),
    chat_shown,
    lambda body: b"\ndata: [DONE]" in body,
    passed=without_usage_chunks,
)


# Anthropic's messages: complete with an event of their own


def message_event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {written({'type': kind, **members})}\n\n".encode()


def message_shown(body: bytes) -> Span:
    blocks: list[str] = []
    usage: dict[str, int] = {}
    begun = False
    for event in events_in(body):
        begun = True
        usage |= event.get("usage", {}) | event.get("message", {}).get("usage", {})
        if event["type"] == "content_block_start":
            blocks.append("")
        if event["type"] == "content_block_delta":
            blocks[0] += event["delta"]["text"]
    content = [{"type": "text", "text": text} for text in blocks]
    return {"output": {"role": "assistant", "content": content} if begun else None, "usage": usage or None}


MESSAGE = Recording(
    "/v1/messages",
    True,
    SSE,
    (
        message_event("message_start", message={"role": "assistant", "model": "m-1", "usage": {"input_tokens": 9}}),
        message_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        message_event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"}),
        message_event("content_block_delta", index=0, delta={"type": "text_delta", "text": " there"}),
        message_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
        message_event("message_stop"),
    ),
    message_shown,
    lambda body: any(event["type"] == "message_stop" for event in events_in(body)),
)


# An answer in one piece

MESSAGE_SAID = {"role": "assistant", "content": "Hello there"}
COMPLETION = written({"id": "c-1", "choices": [{"index": 0, "message": MESSAGE_SAID}], "usage": USAGE}).encode()


def completion_shown(body: bytes) -> Span:
    if body == COMPLETION:
        return {"output": MESSAGE_SAID, "usage": USAGE, "full_response": json.loads(COMPLETION)}
    return {"output": None, "usage": None, "full_response": {"body": body.decode()}}


BODY = Recording(
    "/v1/chat/completions",
    False,
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(COMPLETION),
    (COMPLETION,),
    completion_shown,
    lambda body: body == COMPLETION,
)

RECORDINGS = {"chat": CHAT, "message": MESSAGE, "body": BODY}


# Cuts

ENDED = {"status": "success", "status_code": 200, "error_code": None}
CUT = {"status": "failed", "status_code": 502, "error_code": "upstream_cut"}
UNANSWERED = {"status": "failed", "status_code": 502, "error_code": "upstream_unreachable"}
LEFT = {"status": "failed", "status_code": 499, "error_code": "client_gone"}
NOTHING = {"output": None, "usage": None, "full_response": None}


@dataclass(frozen=True)
class Case:
    """One cut: what the upstream sends before it, how many bytes the client reads before it, and the span it leaves."""

    name: str
    recording: Recording
    who: str
    how: str
    sent: bytes
    read: int
    span: Span


def upstream_cut(name: str, recording: Recording, how: str, offset: int) -> Case:
    """The upstream sends so many bytes of its answer; the client reads what it gets."""
    sent = recording.wire[:offset]
    if offset < len(recording.head):
        span = {**UNANSWERED, **NOTHING}
    else:
        body, is_whole = recording.body_in(sent)
        span = {**(ENDED if is_whole or recording.is_all(body) else CUT), **recording.shown(body)}
    return Case(name, recording, "upstream", how, sent, 0, span)


def client_cut(name: str, recording: Recording, how: str, offset: int, head: int) -> Case:
    """The client reads so many bytes of the gateway's answer, whose head is `head` bytes long.

    The upstream sends no more than is needed for that: whole events of a stream, bytes of a body.
    """
    whole = b"".join(recording.chunks)
    if recording.is_chunked:
        events = re.split(rb"(?<=\n\n)(?!\Z)", whole)
        starts = (b"".join(events[:number]) for number in range(len(events)))
        body = next((start for start in starts if offset <= head + len(framed(recording.passed(start)))), whole)
        sent = recording.head + framed(body)
    else:
        body = whole[: max(0, offset - head)]
        sent = recording.head + body
    if recording.is_all(body):
        return Case(name, recording, "client", how, recording.wire, offset, {**ENDED, **recording.shown(body)})
    if offset == 0:
        return Case(name, recording, "client", how, b"", offset, {**LEFT, **NOTHING})
    return Case(name, recording, "client", how, sent, offset, {**LEFT, **recording.shown(body)})


def framed(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body) if body else b""


class Cuts:
    """Makes calls that are cut, and looks at what they leave; the rows up to `looked_at` are as they should be."""

    def __init__(self, gateway: Gateway, upstream: ScriptedUpstream) -> None:
        self._gateway = gateway
        self._upstream = upstream
        self._cases: dict[str, Case] = {}
        self.looked_at = 0
        upstream.play = self._play

    async def _play(self, received: Received, wire: Wire) -> None:
        self._upstream.requests.clear()
        case = self._cases[received.headers["X-Case"]]
        await wire.send(case.sent)
        if case.who == "upstream":
            wire.abort() if case.how == "rst" else wire.close()
        elif case.sent != case.recording.wire:
            await wire.gone()

    async def head_of(self, recording: Recording) -> int:
        """How many bytes the head of the gateway's answer has."""
        whole = upstream_cut(f"whole {recording.path}", recording, "fin", len(recording.wire))
        async with self._begun(whole) as client:
            return len(await soon(client.reader.readuntil(b"\r\n\r\n")))

    @contextlib.asynccontextmanager
    async def _begun(self, case: Case) -> AsyncIterator[RawClient]:
        self._cases[case.name] = case
        params = base64.b64encode(written({"custom_identifier": case.name}).encode()).decode()
        async with raw_client(self._gateway.url, KEY) as client:
            await client.post(
                case.recording.path, case.recording.request, f"X-Case: {case.name}", f"X-Data-Respan-Params: {params}"
            )
            yield client

    async def _make(self, case: Case) -> None:
        async with self._begun(case) as client:
            if case.who == "client":
                await soon(client.reader.readexactly(case.read))
                if case.how == "rst":
                    client.reset()
                else:
                    await client.finish()
                return
            if len(case.sent) < len(case.recording.head):
                await client.read_answer()
                assert client.status == 502, case.name
                return
            if case.sent == case.recording.wire:
                got = await client.read_answer()
            else:
                await client.read_head()
                got = await client.read_rest()
                if case.recording.is_chunked:
                    got, is_whole = unchunked(got)
                    assert not is_whole, case.name
            expected = case.recording.passed(case.recording.body_in(case.sent)[0])
            assert (client.status, got) == (200, expected), f"{case.name}: {difference(got, expected)}"

    async def all(self, cases: list[Case]) -> None:
        """Makes the calls, several at once, and compares their spans once all are settled."""
        left = iter(cases)

        async def one_by_one() -> None:
            for case in left:
                await self._make(case)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one_by_one())
        spans = await soon(self._settled())
        assert sorted(str(span["custom_identifier"]) for span in spans) == sorted(self._cases)
        for found in spans:
            case = self._cases.pop(found["custom_identifier"])
            span = {name: found[name] for name in case.span}
            span |= {name: text and json.loads(text) for name, text in span.items() if name in NOTHING}
            assert span == case.span, case.name
        self.looked_at = max(span["row_id"] for span in spans)

    async def _settled(self) -> list[Span]:
        """The spans that have not been looked at, as soon as none is open and there is one a call, or more."""
        while True:
            spans = rows(self._gateway.path, above=self.looked_at)
            if len(spans) >= len(self._cases) and not any(span["status"] == "running" for span in spans):
                return spans
            await asyncio.sleep(0.01)


def connections() -> int:
    """The TCP connections that this process has open, at either end."""
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    ours = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(line[9] in ours and line[3] != LISTENING for line in lines)


async def left_behind(before: set[asyncio.Task[Any]]) -> tuple[int, set[asyncio.Task[Any]]]:
    """The open connections, and the tasks that did not run before; waits until there are none.

    A connection to an upstream that has answered is kept for a while, and tokens are counted one call after another.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(120):
            while connections() or asyncio.all_tasks() - before:
                await asyncio.sleep(0.01)
    return connections(), asyncio.all_tasks() - before


@pytest.mark.parametrize("name", RECORDINGS)
async def test_a_cut_at_any_byte_leaves_one_span_and_nothing_else(
    start_gateway: StartGateway,
    upstream: ScriptedUpstream,
    how_long: HowLong,
    figures: Figures,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr("gateway.upstream.client._IDLE_KEPT_S", 0.2)
    gateway = await start_gateway()
    before = asyncio.all_tasks()
    recording = RECORDINGS[name]
    cuts = Cuts(gateway, upstream)
    head = await cuts.head_of(recording)
    length = head + len(recording.passed(b"".join(recording.chunks)))
    made = 0
    for number in how_long.rounds(stride=2, long=STEP):
        start = (date.today().toordinal() + number) % STEP
        cases = []
        for how in ("fin", "rst"):
            cases += [
                upstream_cut(f"{number} upstream {how} {offset}", recording, how, offset)
                for offset in range(start, len(recording.wire) + 1, STEP)
            ]
            cases += [
                client_cut(f"{number} client {how} {offset}", recording, how, offset, head)
                for offset in range(start, length + 1, STEP)
            ]
        await cuts.all(cases)
        made += len(cases)
    assert await left_behind(before) == (0, set())
    assert rows(gateway.path, above=cuts.looked_at) == []
    figures(cuts=made, bytes_of_the_answer=len(recording.wire), without_span=0, leaked_tasks=0, leaked_connections=0)
